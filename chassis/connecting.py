"""Connects to hosts that operators name: resolves the name once, checks the addresses, and connects
to an allowed address.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_address

from chassis.address_policy import NAME, AddressPolicy

RESOLVE_S = 5.0
# How many addresses of a name are tried.
MAX_ADDRESSES = 4


class AddressRefused(OSError):
    """The policy allows none of the addresses. The message has the addresses and the reasons."""


async def resolved(host: str, port: int, policy: AddressPolicy) -> Sequence[str]:
    """The allowed addresses of `host`, at least one, in the order in which to try them.

    Raises `AddressRefused`; `OSError`, `UnicodeError` or `TimeoutError` for a name that cannot be
    resolved.
    """
    refusals: list[str] = []
    allowed: list[str] = []
    for text in await _addresses_of(host, port):
        reason = policy.refusal_of(ip_address(text))
        if reason is None:
            allowed.append(text)
        else:
            refusals.append(f"{text} {reason}")
    if not allowed:
        raise AddressRefused(f"{host} is not connected to: {refusals[0]} ({NAME})")
    return list(dict.fromkeys(allowed))[:MAX_ADDRESSES]


async def _addresses_of(host: str, port: int) -> Sequence[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        loop = asyncio.get_running_loop()
    async with asyncio.timeout(RESOLVE_S):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def connected(
    host: str, port: int, policy: AddressPolicy, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to an allowed address of `host`. The certificate must be valid for `host`.
    Raises the errors of `resolved`, and `OSError` if no address answers.
    """
    failure: OSError | None = None
    for address in await resolved(host, port, policy):
        try:
            return await asyncio.open_connection(
                address, port, ssl=tls, server_hostname=host if tls else None
            )
        except OSError as error:
            failure = error
    raise failure or OSError(f"{host} has no address")
