"""The destination of a broker's password: the kind of connection, its address, and how TLS is
checked.

A password is encrypted for the destination that it was given for (`broker_service/encryption.py`),
and is used for no other.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from broker_service.settings import HTTP_MANAGEMENTS, TLS_OF_PROTOCOL, url_of

# A Mosquitto is managed over MQTT, at the address that its clients use.
MQTT = "mqtt"
# The ways in which a broker's certificate is checked.
NO_TLS, UNVERIFIED, SYSTEM_CAS = "", "unverified", "system"


@dataclass(frozen=True, slots=True)
class Destination:
    """The values that determine which server receives the password."""

    # mqtt, emqx or rabbitmq.
    kind: str
    url: str
    # NO_TLS, UNVERIFIED, SYSTEM_CAS, or the SHA-256 of the PEM text of the trusted CAs.
    trust: str

    @property
    def is_verified(self) -> bool:
        """Whether the server authenticates with a certificate."""
        return self.trust not in (NO_TLS, UNVERIFIED)

    def differs_in_ca_alone(self, other: "Destination") -> bool:
        """Whether both are the same server, verified with different CAs."""
        return (
            self != other
            and (self.kind, self.url) == (other.kind, other.url)
            and self.is_verified
            and other.is_verified
        )

    def encoded(self) -> str:
        """The destination as text."""
        return json.dumps(astuple(self), separators=(",", ":"))


def destination_of(columns: Mapping[Any, Any], ca_pem: str | None) -> Destination:
    """The destination of the password of a broker with these columns, if `ca_pem` is trusted. A
    revision may be so old that it lacks the columns of management.
    """
    management = columns.get("management", "")
    if management in HTTP_MANAGEMENTS:
        kind, url = management, columns["management_url"]
        uses_tls = url.startswith("https:")
    else:
        kind = MQTT
        names = ("protocol", "host", "port", "path")
        url = url_of(*(columns[name] for name in names))
        uses_tls = TLS_OF_PROTOCOL.get(columns["protocol"], True)
    return Destination(kind, url, _trust(uses_tls, columns["verify_certificate"], ca_pem))


def _trust(uses_tls: bool, is_verified: bool, ca_pem: str | None) -> str:
    if not uses_tls:
        return NO_TLS
    if not is_verified:
        return UNVERIFIED
    return SYSTEM_CAS if ca_pem is None else hashlib.sha256(ca_pem.encode()).hexdigest()


def shown(encoded: str) -> str:
    """The kind and URL of an encoded destination, for people."""
    kind, url, _ = json.loads(encoded)
    return str(url) if kind == MQTT else f"{kind} at {url}"


def first_given_for(uses: Iterable[tuple[bool, Destination]]) -> Destination:
    """The destination of a password that was stored without one, from the revisions that had it.
    `uses` has at least one item: for each revision, oldest first, whether the broker was managed,
    and its destination. Mooring has sent the password of a managed broker to its destination, so
    the last managed revision decides. If there is none, the first revision decides.
    """
    all_uses = list(uses)
    managed = [destination for is_managed, destination in all_uses if is_managed]
    return managed[-1] if managed else all_uses[0][1]
