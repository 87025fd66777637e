"""Reads private keys from PEM text, and checks that they are of a usual kind and belong to a
certificate.

An attacker may send a key that takes long to check, so sizes are checked before any computation:
testing whether a number of 20,000 bits is prime takes minutes.
"""

import re

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from broker_service.pem import blocks_of
from chassis.errors import InvalidInput

FIELD = "private_key"
# The labels of PKCS #8, PKCS #1 and SEC 1.
LABELS = frozenset({"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})
# OpenSSL writes this block with the curve before the key. It is ignored, because the key names the
# curve too.
PARAMETERS = "EC PARAMETERS"
# The mark of an encrypted key: in PKCS #8, and in OpenSSL's older form (RFC 1421, section 4.6).
ENCRYPTED = re.compile(r"ENCRYPTED PRIVATE KEY|Proc-Type:\s*4,\s*ENCRYPTED")
# A key with 4,096 bits has 2,400 bytes.
MAX_DER_BYTES = 3_000
MAX_RSA_BITS = 4_096

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


def read_private_key(pem: str, public_key: CertificatePublicKeyTypes) -> str:
    """The key as PKCS #8 in PEM. Raises `InvalidInput`, which reveals nothing about the key."""
    if ENCRYPTED.search(pem):
        raise InvalidInput(
            "is protected by a passphrase: send it without one, it is kept encrypted", field=FIELD
        )
    blocks = [block for block in blocks_of(pem, field=FIELD, most=2) if block.label != PARAMETERS]
    if len(blocks) != 1 or blocks[0].label not in LABELS:
        raise InvalidInput("is not one PEM private key", field=FIELD)
    try:
        key = _loaded(blocks[0].der)
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, InternalError):
        raise InvalidInput("is not a PEM private key", field=FIELD) from None
    if key is None:
        raise InvalidInput(
            f"is neither RSA of at most {MAX_RSA_BITS} bits nor on an elliptic curve", field=FIELD
        )
    if _public(key.public_key()) != _public(public_key):
        raise InvalidInput("is not the key of the first certificate", field=FIELD)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _loaded(der: bytes) -> PrivateKey | None:
    """The key, checked; None for one of another kind, or too large to check."""
    if len(der) > MAX_DER_BYTES:
        return None
    # Keys that are loaded like this are not used for computation; only their sizes are read.
    unchecked = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    if isinstance(unchecked, rsa.RSAPrivateKey) and not _is_bounded(unchecked.private_numbers()):
        return None
    key = load_der_private_key(der, None)
    return key if isinstance(key, PrivateKey) else None


def _is_bounded(numbers: rsa.RSAPrivateNumbers) -> bool:
    modulus = numbers.public_numbers.n
    bits = modulus.bit_length()
    primes = (numbers.p, numbers.q)
    return (
        bits <= MAX_RSA_BITS
        and all(prime.bit_length() <= bits // 2 + 1 for prime in primes)
        and numbers.p * numbers.q == modulus
    )


def _public(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
