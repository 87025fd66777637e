"""Reads certificates from PEM text, and checks that they fit their purpose."""

import hashlib
import ssl
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from broker_service.certificates.private_keys import read_private_key
from broker_service.pem import CERTIFICATE, Block, blocks_of
from chassis.errors import InvalidInput
from chassis.validation import CONTROL

CA, CLIENT = "ca", "client"
MAX_CERTIFICATES = 16
MAX_NAME = 255
# OpenSSL refuses shorter keys by default; longer ones slow down every handshake of every device.
RSA_BITS = (2_048, 8_192)
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# The errors of the library for text that is not a certificate, or not one that it supports.
UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    # Errors of OpenSSL for which the library has no class.
    InternalError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A CA bundle, or a client's chain. `pem` is written anew, so it contains only certificates.

    `subject` and `issuer` come from the first certificate.
    """

    kind: str
    name: str
    pem: str
    # The key of a client's chain that was sent with its key, as PKCS #8 in PEM.
    private_key: str | None = field(repr=False)
    # The hash of all certificates in order. For a single certificate it is the fingerprint that
    # other tools show.
    fingerprint_sha256: str
    subject: str
    issuer: str
    # The time in which all certificates are valid.
    not_before: datetime
    not_after: datetime


def read_ca(pem: str, *, name: str | None = None, field: str = "pem") -> Certificate:
    """Reads the CA certificates for verifying a broker's certificate, in any order, without
    duplicates. Raises `InvalidInput` for `field`.
    """
    found = list(dict.fromkeys(_certificates(pem, field)))
    for certificate in found:
        if not _is_ca(certificate, field):
            raise InvalidInput("holds a certificate that is not a CA's", field=field)
    return _checked(CA, found, name, None, field)


def read_client(
    pem: str, private_key: str | None, *, name: str | None = None, field: str = "pem"
) -> Certificate:
    """Reads a client's certificate and its intermediate CAs (RFC 8446, 4.4.2).

    `private_key` is PEM. Raises `InvalidInput` for `field` or `private_key`.
    """
    chain = _certificates(pem, field)
    leaf, *issuers = chain
    if _is_ca(leaf, field):
        raise InvalidInput("begins with a CA's certificate: the client's comes first", field=field)
    if not all(_is_ca(issuer, field) for issuer in issuers):
        raise InvalidInput("holds a second certificate that is not a CA's", field=field)
    for place, (certificate, issuer) in enumerate(pairwise(chain), start=2):
        if not _is_issued_by(certificate, issuer):
            raise InvalidInput(
                f"is out of order or incomplete: certificate {place} did not issue the one"
                " before it",
                field=field,
            )
    kept = read_private_key(private_key, leaf.public_key()) if private_key is not None else None
    return _checked(CLIENT, chain, name, kept, field)


def _certificates(pem: str, field: str) -> list[x509.Certificate]:
    """At least one certificate; the kinds and sizes of all keys are usual ones. Raises
    `InvalidInput`.
    """
    if "PRIVATE KEY" in pem:
        raise InvalidInput("contains a private key, which is not allowed here", field=field)
    blocks = blocks_of(pem, field=field, most=MAX_CERTIFICATES)
    if any(block.label not in CERTIFICATE for block in blocks):
        raise InvalidInput("contains PEM blocks that are not certificates", field=field)
    try:
        found = loaded(blocks)
        are_usable = all(_is_usable(certificate) for certificate in found)
    except UNREADABLE:
        # The library's text is about its parser, and would not help the operator.
        raise InvalidInput("is not a PEM certificate", field=field) from None
    if not are_usable:
        raise InvalidInput(
            f"holds a key that is neither RSA of {RSA_BITS[0]} to {RSA_BITS[1]} bits nor on the"
            " curves P-256, P-384, P-521, Ed25519 or Ed448",
            field=field,
        )
    return found


def loaded(blocks: Sequence[Block]) -> list[x509.Certificate]:
    """The certificates of PEM blocks. Raises one of `UNREADABLE`."""
    with warnings.catch_warnings():
        # Ignore the warning about a serial number that is not positive (RFC 5280, section 4.1.2.2):
        # old CAs have 0.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return [x509.load_der_x509_certificate(block.der) for block in blocks]


def _require_openssl(pem: str, field: str) -> None:
    """Raises `InvalidInput` for a certificate that OpenSSL, and so most clients, cannot load.
    OpenSSL decodes some parts at once, such as the public key, that this library does not check.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise InvalidInput("holds a certificate that OpenSSL cannot load", field=field) from None


def _is_usable(certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return RSA_BITS[0] <= key.key_size <= RSA_BITS[1]
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, CURVES)
    return isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)


def _is_ca(certificate: x509.Certificate, field: str) -> bool:
    """Whether it is the certificate of a CA (RFC 5280, sections 4.2.1.9 and 4.2.1.3). A self-signed
    version 1 root is one without extensions.
    """
    try:
        extensions = certificate.extensions
    except UNREADABLE:
        raise InvalidInput("is not a PEM certificate", field=field) from None
    try:
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except x509.ExtensionNotFound:
        return certificate.version is x509.Version.v1 and certificate.issuer == certificate.subject
    try:
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _checked(
    kind: str,
    found: Sequence[x509.Certificate],
    name: str | None,
    private_key: str | None,
    field: str,
) -> Certificate:
    try:
        # The library decodes names at their first use. All are read here, so that no certificate is
        # stored whose names cannot be read later.
        names = [(one.subject.rfc4514_string(), one.issuer.rfc4514_string()) for one in found]
        subject, issuer = names[0]
        not_before = max(certificate.not_valid_before_utc for certificate in found)
        not_after = min(certificate.not_valid_after_utc for certificate in found)
        ders = [certificate.public_bytes(Encoding.DER) for certificate in found]
        texts = [certificate.public_bytes(Encoding.PEM).decode() for certificate in found]
    except UNREADABLE:
        raise InvalidInput("is not a PEM certificate", field=field) from None
    _require_openssl("".join(texts), field)
    if not_after <= datetime.now(UTC):
        raise InvalidInput(f"expired on {not_after:%Y-%m-%d}", field=field)
    fingerprint = hashlib.sha256(b"".join(ders)).hexdigest()
    return Certificate(
        kind=kind,
        name=name or CONTROL.sub(" ", subject)[:MAX_NAME] or fingerprint,
        pem="".join(texts),
        private_key=private_key,
        fingerprint_sha256=fingerprint,
        subject=subject,
        issuer=issuer,
        not_before=not_before,
        not_after=not_after,
    )
