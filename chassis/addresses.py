"""Decides which addresses count as one host."""

import socket


def host_of(address: str) -> bytes | str:
    """The /64 of an IPv6 address, else the address itself. An IPv6 host can choose any address of
    its /64 (RFC 4291, section 2.5.1).
    """
    if ":" not in address or address.startswith("::ffff:"):
        return address.removeprefix("::ffff:")
    try:
        return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8]
    except OSError:
        return address
