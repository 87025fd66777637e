"""Certificates from PEM text: what is in them, and whether they can be what they are meant for."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chassis.errors import InvalidInput

MAX_PEM_CHARACTERS = 64 * 1024
MAX_CERTIFICATES = 16
UNREADABLE = (
    ValueError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class CaBundle:
    """One or more CA certificates that a broker's certificate may chain to."""

    name: str
    pem: str
    # Of the one certificate; of a bundle, over all of them.
    fingerprint_sha256: str
    subject: str
    issuer: str
    # When the whole bundle is valid.
    not_before: datetime
    not_after: datetime


def read_ca(pem: str) -> CaBundle:
    """Reads the PEM text of a CA certificate or bundle. Raises `InvalidInput` for `ca_cert`.

    The text that is kept is written anew, so nothing that stood around the certificates stays.
    """
    if len(pem) > MAX_PEM_CHARACTERS:
        raise InvalidInput(f"must have at most {MAX_PEM_CHARACTERS} characters", field="ca_cert")
    if "PRIVATE KEY" in pem:
        raise InvalidInput("holds a private key, which must not leave its owner", field="ca_cert")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        bundle = [(certificate, _is_ca(certificate)) for certificate in found]
        subjects = [certificate.subject.rfc4514_string() for certificate in found]
        issuers = [certificate.issuer.rfc4514_string() for certificate in found]
    except UNREADABLE:
        # The library's text is of its parser; what the operator needs to know is this.
        raise InvalidInput("is not a PEM certificate", field="ca_cert") from None
    if len(bundle) > MAX_CERTIFICATES:
        raise InvalidInput(f"holds more than {MAX_CERTIFICATES} certificates", field="ca_cert")
    if not all(is_ca for _, is_ca in bundle):
        raise InvalidInput("holds a certificate that is not a CA's", field="ca_cert")
    not_after = min(certificate.not_valid_after_utc for certificate in found)
    if not_after <= datetime.now(UTC):
        raise InvalidInput(f"expired on {not_after:%Y-%m-%d}", field="ca_cert")
    der = b"".join(certificate.public_bytes(Encoding.DER) for certificate in found)
    return CaBundle(
        name=subjects[0],
        pem="".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found),
        fingerprint_sha256=hashlib.sha256(der).hexdigest(),
        subject=subjects[0],
        issuer=issuers[0],
        not_before=max(certificate.not_valid_before_utc for certificate in found),
        not_after=not_after,
    )


def _is_ca(certificate: x509.Certificate) -> bool:
    """RFC 5280, section 4.2.1.9; a self-signed version 1 root has no extensions to say so."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return certificate.issuer == certificate.subject
    return constraints.value.ca
