"""A device's report, checked before anything else."""

from urllib.parse import urlsplit

from mooring.registry.v1 import reports_pb2 as pb
from msgspec import Struct

from chassis.errors import InvalidInput
from chassis.validation import check_text
from registry_service.provisioning.request import check_connection_request

CONNECTED = "connected"
FAILED = "failed"
STATES = (CONNECTED, FAILED)

MAX_BROKER = 512
MAX_ERROR = 256
MAX_GENERATION = 64
# The ports of URLs without one: those of the registry of IANA, and RFC 6455, section 3.
PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


class Address(Struct, frozen=True):
    """The address of a broker, to be compared with those of stored brokers."""

    protocol: str
    # In lower case, an IPv6 address without brackets.
    host: str
    port: int
    # "/" if there is none.
    path: str


def address_of(url: str) -> Address | None:
    """The address in a broker's URL; None for a text that is no such URL.

    The upper case of the protocol and the host, a missing port and a missing path make no
    difference (RFC 3986, section 6.2). Names and passwords in the URL are ignored.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname
    if not host or parts.scheme not in PORTS:
        return None
    return Address(
        parts.scheme, host, PORTS[parts.scheme] if port is None else port, parts.path or "/"
    )


class Report(Struct, frozen=True):
    """A well-formed report of a device. `address` is None for a text that is no URL."""

    state: str
    address: Address | None
    error: str
    generation: str


def read_report(message: pb.ConnectionReport) -> Report:
    """Raises `InvalidInput`, which names the field."""
    check_connection_request(message)
    if message.state not in STATES:
        raise InvalidInput(f"must be {CONNECTED} or {FAILED}", field="state")
    check_text("broker", message.broker, shortest=1, longest=MAX_BROKER)
    check_text("generation", message.generation, longest=MAX_GENERATION)
    check_text("error", message.error, longest=MAX_ERROR)
    return Report(
        message.state,
        address_of(message.broker),
        message.error if message.state == FAILED else "",
        message.generation,
    )
