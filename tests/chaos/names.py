"""A name server that knows one name; a test can change its answer."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import cast

HEADER_BYTES = 12
A, IN = 1, 1
# Authoritative answer, recursion available (RFC 1035, section 4.1.1).
ANSWER = 0x8580
# A pointer to the name in the question (RFC 1035, section 4.1.4).
SAME_NAME = 0xC00C


class Names(asyncio.DatagramProtocol):
    """Answers every question for addresses (RFC 1035) with `addresses`."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        end = data.index(0, HEADER_BYTES) + 1
        question = data[HEADER_BYTES : end + 4]
        (kind,) = struct.unpack_from("!H", data, end)
        addresses = self.addresses if kind == A else []
        header = data[:2] + struct.pack("!5H", ANSWER, 1, len(addresses), 0, 0)
        records = (
            struct.pack("!3HIH", SAME_NAME, A, IN, 0, 4) + socket.inet_aton(address)
            for address in addresses
        )
        assert self._transport is not None
        self._transport.sendto(header + question + b"".join(records), addr)


@contextlib.asynccontextmanager
async def names() -> AsyncIterator[Names]:
    """Listens on a free port of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Names, ("127.0.0.1", 0))
    try:
        yield protocol
    finally:
        transport.close()
