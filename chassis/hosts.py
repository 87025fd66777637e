"""Checks hosts and MQTT URLs that operators write.

The database has the same rule for hosts that are set by SQL (`is_host` in the migrations).
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from chassis.errors import InvalidInput

Address: TypeAlias = IPv4Address | IPv6Address

MAX_HOST = 253
# The characters of RFC 1123, section 2.1, and underscores, which names in container networks have.
LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
# Resolvers read a name whose last label is a number as an IPv4 address: 127.1, 2130706433, 0x7f.1.
NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
MQTT_URL = re.compile(
    r"(?:mqtt|mqtts|ws|wss)://(?P<host>\[[^\s/@\[\]]*\]|[^\s/@:\[\]]*)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/\S*)?"
)


def check_host(host: str, *, field: str) -> Address | None:
    """The address in `host`, or None if `host` is a name. Raises `InvalidInput` for `field`."""
    if host.startswith("["):
        raise InvalidInput("an IPv6 address stands in brackets in URLs, not here", field=field)
    try:
        address = ip_address(host)
    except ValueError:
        _check_name(host, field)
        return None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise InvalidInput("must be an address without a zone", field=field)
    return address


def unwrapped(address: Address) -> Address:
    """The IPv4 address of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), else the same
    address. Versions of Python differ in the properties of mapped addresses, so call this first.
    """
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_name(text: str) -> bool:
    """Whether the text is a host name. It must not be a number, or end with a dot."""
    labels = text.split(".")
    return (
        len(text) <= MAX_HOST
        and all(LABEL.fullmatch(label) for label in labels)
        and not NUMBER.fullmatch(labels[-1])
    )


def _check_name(host: str, field: str) -> None:
    if is_name(host):
        return
    if not host.isascii():
        raise InvalidInput(
            "must be ASCII: an internationalised name is written in its form xn--…", field=field
        )
    if is_name(host.removesuffix(".")):
        # Certificates have no names with a dot at the end (RFC 6125, section 6.4.1).
        raise InvalidInput("must not end with a dot", field=field)
    raise InvalidInput("must be a host name or an IP address", field=field)


def _checked_mqtt_url(url: str) -> str:
    found = MQTT_URL.fullmatch(url)
    if found is None or not 1 <= int(found["port"] or 1) <= 65_535:
        raise ValueError("must be a URL of mqtt, mqtts, ws or wss without a username")
    host = found["host"]
    is_bracketed = host.startswith("[")
    try:
        address = check_host(host[1:-1] if is_bracketed else host, field="host")
    except InvalidInput as error:
        raise ValueError(f"the host {error.message}") from None
    if is_bracketed != isinstance(address, IPv6Address):
        raise ValueError("an IPv6 address stands in brackets, and nothing else does")
    return url


# The URL to which an MQTT client connects. Without a port, it means the protocol's default port.
MqttUrl = Annotated[str, AfterValidator(_checked_mqtt_url)]
