"""The steps of a test, their outcomes, and why a step failed, in words that help to mend it."""

import ssl
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from chassis.mqtt import BrokerRefusal, ProtocolError


class Step(Enum):
    """The steps, in their order."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    TLS = "tls"
    LOGIN = "login"
    ROUND_TRIP = "round_trip"


class State(Enum):
    """How a step ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a step failed: `reason` is UPPER_SNAKE, for programs, `detail` is for people."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a step. `reason` is empty unless it failed."""

    step: Step
    state: State
    detail: str
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Presented:
    """What a certificate that a broker presents says of itself."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]


# Codes of OpenSSL (`man X509_STORE_CTX_get_error`).
NOT_YET_VALID, EXPIRED = 9, 10
SELF_SIGNED = (18, 19)
ISSUER_UNKNOWN = (2, 20, 21)
WRONG_NAME = (62, 64)
# MQTT 3.1.1, section 3.2.2.3. Some brokers answer with the codes of MQTT 5 (3.2.2.2).
CONNACKS = {
    1: ("MQTT_VERSION_REFUSED", "the broker does not speak MQTT 3.1.1"),
    2: ("CLIENT_ID_REFUSED", "the broker refuses the client id"),
    3: ("BROKER_UNAVAILABLE", "the broker says that its MQTT service is not available"),
    4: ("LOGIN_REFUSED", "the broker refuses the username or the password"),
    5: ("NOT_AUTHORIZED", "the broker does not authorize this login"),
    0x84: ("MQTT_VERSION_REFUSED", "the broker does not speak MQTT 3.1.1"),
    0x86: ("LOGIN_REFUSED", "the broker refuses the username or the password"),
    0x87: ("NOT_AUTHORIZED", "the broker does not authorize this login"),
    0x88: ("BROKER_UNAVAILABLE", "the broker says that its MQTT service is not available"),
    0x8A: ("NOT_AUTHORIZED", "the broker has banned this client"),
}
# With these, a broker refuses a login, or a client that has none.
REFUSES_LOGIN = frozenset({4, 5, 0x86, 0x87})
NAMES_SHOWN = 5


def presented(certificate: bytes) -> Presented | None:
    """Reads a certificate in DER; None if it cannot be read."""
    try:
        read = x509.load_der_x509_certificate(certificate)
        try:
            found = read.extensions.get_extension_for_oid(
                ExtensionOID.SUBJECT_ALTERNATIVE_NAME
            ).value
        except x509.ExtensionNotFound:
            names: list[str] = []
        else:
            assert isinstance(found, x509.SubjectAlternativeName)  # noqa: S101 - for the type alone
            names = [
                *found.get_values_for_type(x509.DNSName),
                *map(str, found.get_values_for_type(x509.IPAddress)),
            ]
        return Presented(
            read.subject.rfc4514_string(),
            read.issuer.rfc4514_string(),
            read.not_valid_before_utc,
            read.not_valid_after_utc,
            tuple(names),
        )
    except ValueError:
        return None


def tls_fault(error: BaseException, host: str, shown: Presented | None) -> Fault:
    """Why a TLS handshake failed; `shown` is the broker's certificate, if it could be read."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_fault(error, host, shown)
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "WRONG_VERSION" in reason or "HTTP_REQUEST" in reason:
            return Fault("NOT_TLS", "this port does not speak TLS: is it the port without TLS?")
        if "CERTIFICATE_REQUIRED" in reason or "BAD_CERTIFICATE" in reason:
            return _CLIENT_CERTIFICATE
        return Fault("TLS_FAILED", f"the TLS handshake failed: {reason.replace('_', ' ').lower()}")
    if isinstance(error, TimeoutError):
        return Fault("TLS_SILENT", "the port accepts connections, and does not answer TLS")
    return Fault(
        "TLS_CLOSED",
        "the broker closed the connection during the TLS handshake: does this port speak TLS?",
    )


_CLIENT_CERTIFICATE = Fault(
    "CLIENT_CERTIFICATE_REQUIRED", "the broker requires a client certificate, which a test has not"
)


def _certificate_fault(
    error: ssl.SSLCertVerificationError, host: str, shown: Presented | None
) -> Fault:
    code = error.verify_code
    subject = f" ({shown.subject or 'without a subject'})" if shown else ""
    if code == EXPIRED:
        ended = f" on {shown.not_after:%Y-%m-%d %H:%M} UTC" if shown else ""
        return Fault(
            "CERTIFICATE_EXPIRED", f"a certificate of the broker's chain{subject} ended{ended}"
        )
    if code == NOT_YET_VALID:
        begins = f" before {shown.not_before:%Y-%m-%d %H:%M} UTC" if shown else ""
        return Fault(
            "CERTIFICATE_NOT_YET_VALID", f"the broker's certificate{subject} is not valid{begins}"
        )
    if code in WRONG_NAME:
        names = ", ".join(shown.names[:NAMES_SHOWN]) if shown else ""
        return Fault(
            "CERTIFICATE_NAME_MISMATCH",
            f"the broker's certificate{subject} is not for {host}, but for {names or 'no name'}",
        )
    if code in SELF_SIGNED:
        return Fault(
            "CERTIFICATE_SELF_SIGNED",
            f"the broker's certificate{subject} is signed by itself or by a root that the broker's"
            " CA certificate does not contain",
        )
    if code in ISSUER_UNKNOWN:
        issuer = f" ({shown.issuer})" if shown else ""
        return Fault(
            "CERTIFICATE_ISSUER_UNKNOWN",
            f"the broker's certificate{subject} is issued by a CA{issuer} that is not trusted: give"
            " the CA's certificate, or let the broker send the certificates between",
        )
    return Fault(
        "CERTIFICATE_REFUSED", f"the broker's certificate{subject}: {error.verify_message}"
    )


def mqtt_fault(error: BaseException) -> Fault:
    """Why a step of MQTT failed."""
    if isinstance(error, BrokerRefusal):
        reason, detail = CONNACKS.get(
            error.code, ("MQTT_REFUSED", f"the broker refuses with the code {error.code:#04x}")
        )
        return Fault(reason, detail)
    if isinstance(error, TimeoutError):
        return Fault("MQTT_SILENT", "the broker accepts connections, and does not answer MQTT")
    if isinstance(error, ProtocolError):
        return Fault("NOT_MQTT", f"the answer is not MQTT: {error}")
    if isinstance(error, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (error.reason or ""):
        return _CLIENT_CERTIFICATE
    return Fault(
        "MQTT_CLOSED",
        "the broker closed the connection without an answer: is this the right port and protocol?",
    )
