"""What people compare in the certificates of a bundle or chain, one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from broker_service.certificates.reading import MAX_CERTIFICATES, UNREADABLE, loaded
from broker_service.pem import blocks_of
from chassis.errors import InvalidInput

KEPT_IN_MEMORY = 64
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One certificate. Names are as in RFC 4514; numbers and hashes are hex."""

    subject: str
    issuer: str
    serial_number: str
    fingerprint_sha256: str
    not_before: datetime
    not_after: datetime
    public_key: str


@lru_cache(KEPT_IN_MEMORY)
def chain_of(pem: str) -> Sequence[ChainLink]:
    """The certificates of a stored PEM text, in its order; empty if it cannot be read, because an
    earlier version with weaker checks stored it.
    """
    try:
        return tuple(map(_link, loaded(blocks_of(pem, field="pem", most=MAX_CERTIFICATES))))
    except (InvalidInput, *UNREADABLE):
        return ()


def _link(certificate: x509.Certificate) -> ChainLink:
    return ChainLink(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial_number=f"{certificate.serial_number:x}",
        fingerprint_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        public_key=_name_of(certificate),
    )


def _name_of(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return CURVES.get(key.curve.name, key.curve.name)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return "Ed448" if isinstance(key, ed448.Ed448PublicKey) else "another kind"
