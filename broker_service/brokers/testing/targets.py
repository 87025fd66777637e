"""The brokers that are tested, as they are in the database."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from broker_service.database import Row, ca_cert_of
from broker_service.destinations import MQTT, destination_of
from broker_service.errors import SecretUnreadable
from broker_service.passwords import problem_of


@dataclass(frozen=True, slots=True)
class Target:
    """A broker, as devices get it, and the login of Mooring's own services."""

    broker_id: int
    protocol: str
    host: str
    port: int
    path: str | None
    use_tls: bool
    verify_certificate: bool
    ca_pem: str | None
    # None without a login for MQTT.
    username: str | None
    password: str | None = field(default=None, repr=False)
    # Why the stored password is not used.
    password_problem: str | None = None


def target_of(row: Row, password_of: Callable[[Row], str]) -> Target:
    """The broker of a row with its certificates. `password_of` decrypts the password of a row."""
    username, password, problem = row["username"], None, None
    # A login for a management API is sent to no other port.
    if destination_of(row, ca_cert_of(row)).kind != MQTT:
        username = None
    if username is not None and row["password_encrypted"] is not None:
        try:
            password = password_of(row)
        except SecretUnreadable as error:
            problem = problem_of(row["id"], error)
    return Target(
        broker_id=row["id"],
        protocol=row["protocol"],
        host=row["host"],
        port=row["port"],
        path=row["path"],
        use_tls=row["use_tls"],
        verify_certificate=row["verify_certificate"],
        ca_pem=ca_cert_of(row),
        username=username,
        password=password,
        password_problem=problem,
    )


def tls_of(target: Target) -> ssl.SSLContext:
    """Checks the broker as devices do. Raises `ValueError` if the CA certificate cannot be read."""
    try:
        context = ssl.create_default_context(cadata=target.ca_pem)
    except ssl.SSLError as error:
        raise ValueError(str(error)) from None
    if not target.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
