"""A client that sends a large body quickly always gets the reason why it is refused."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from chassis.http_limits import HttpLimits
from tests.attacks.test_http_connections import certificate  # noqa: F401 - a fixture
from tests.http_server import ASGI, DIRECT, EARLY, refusing, served

TIMES = 2
BODY_BYTES = 2 * 1024 * 1024
LARGE = b"x" * BODY_BYTES
CHUNKS = (b"%x\r\n%b\r\n" % (65_536, b"x" * 65_536)) * 32
KINDS = {
    f"refused with {status}": [
        (f"POST {path} HTTP/1.1\r\nHost: h\r\n{more}", status)
        for path in refusing(status)
        for more in ("", "Connection: close\r\n", "Expect: 100-continue\r\n")
    ]
    for status in EARLY
} | {
    "too large": [(f"POST {DIRECT} HTTP/1.1\r\nHost: h\r\n", 413)],
    "ambiguous": [
        (f"POST {path} HTTP/1.1\r\nHost: h\r\nHost: i\r\n", 400) for path in (DIRECT, ASGI)
    ],
    "head too large": [(f"POST {ASGI} HTTP/1.1\r\nHost: h\r\nX: {'x' * 40_000}\r\n", 431)],
    "old": [(f"POST {path} HTTP/1.0\r\n", 401) for path in refusing(401)],
}


def status_of(address: tuple[str, int], sent: bytes, tls: ssl.SSLContext | None) -> int:
    """The status of the answer, for a client that sends everything before it reads."""
    raw = socket.create_connection(address, timeout=20)
    with tls.wrap_socket(raw, server_hostname="127.0.0.1") if tls else raw as connection:
        connection.sendall(sent)
        return int(connection.recv(65_536).split()[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_tls", [False, True])
async def test_no_answer_is_lost_to_a_reset(
    kind: str,
    is_tls: bool,
    certificate: tuple[Path, Path, ssl.SSLContext],  # noqa: F811
) -> None:
    chain, key, tls = certificate
    files = (chain, key) if is_tls else ()
    async with served(None, *files) as address:
        for head, status in KINDS[kind]:
            framings = [f"Content-Length: {BODY_BYTES}\r\n\r\n".encode() + LARGE]
            if "1.0" not in head:
                framings.append(b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\n\r\n")
            for framing in framings:
                sent = head.encode() + framing
                for _ in range(TIMES // 2 if is_tls else TIMES):
                    got = await asyncio.to_thread(status_of, address, sent, tls if is_tls else None)
                    assert got == status, head[:60]


async def test_the_bytes_read_after_an_answer_are_bounded() -> None:
    limits = HttpLimits(linger_bytes=1024 * 1024)
    async with served(limits) as address:
        _, writer = await asyncio.open_connection(*address)
        head = b"POST /asgi/refused/401 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head)
        with pytest.raises(ConnectionError):
            await flood(writer)
        writer.transport.abort()


async def flood(writer: asyncio.StreamWriter) -> None:
    """Sends more than the kernel buffers and the server discards. Raises `ConnectionError`."""
    async with asyncio.timeout(20):
        for _ in range(1024):
            writer.write(CHUNKS[:65_536])
            await writer.drain()
            await asyncio.sleep(0)
