"""Finds the client's address of a request, also behind trusted proxies."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from chassis.hosts import Address, unwrapped

Network = IPv4Network | IPv6Network
Client = tuple[str, int]

FORWARDED_FOR = b"x-forwarded-for"


def networks_of(text: Any) -> Any:
    """The networks of a setting, which are separated by commas. Raises `ValueError`."""
    if not isinstance(text, str):
        return text
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def client_of(
    peer: Client | None, headers: Sequence[tuple[bytes, bytes]], trusted: Sequence[Network]
) -> Client | None:
    """The client's address: `peer`, or the one that `X-Forwarded-For` of a trusted proxy names.

    Each proxy adds the address of its client to the end of the header; any client can write the
    entries before that. So the header is read from its end, up to the first address that is not a
    trusted proxy. If an entry cannot be read, the result is the address that was read last.
    """
    if not trusted or peer is None:
        return peer
    address = _address_of(peer[0])
    if address is None or not _is_among(trusted, address):
        return peer
    client = peer
    said = b",".join(value for name, value in headers if name == FORWARDED_FOR)
    for hop in reversed(said.decode("latin-1").split(",")) if said else ():
        address = _address_of(_without_port(hop.strip()))
        if address is None:
            break
        client = (str(address), 0)
        if not _is_among(trusted, address):
            break
    return client


def _is_among(networks: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in networks)


def _without_port(hop: str) -> str:
    """The entry without its port, which some proxies add: 192.0.2.1:4711, [2001:db8::1]:4711."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, port = hop.partition(":")
    return host if colon and port.isdigit() else hop


def _address_of(text: str) -> Address | None:
    """The address, with IPv4-mapped IPv6 unwrapped; None if invalid."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return unwrapped(address)
