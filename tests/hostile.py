"""Hostile brokers, which send endless or far too large answers."""

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ACCEPTED = b"\x20\x03\x00\x00\x00"
SUBSCRIBED = b"\x90\x04\x00\x01\x00\x00"


@contextlib.asynccontextmanager
async def serving(behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on loopback that treats every connection like this; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def treat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behaviour(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(treat, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def http(*parts: bytes) -> Behaviour:
    """Answers a request with the parts; the last of several parts is repeated without end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts[:-1] or parts:
            writer.write(part)
            await writer.drain()
        while len(parts) > 1:
            await _send_much(writer, parts[-1])

    return answer


def gzip_bomb() -> Behaviour:
    """400 KB that become 400 MB."""
    bomb = gzip.compress(b"[" + b" " * 400_000_000 + b"]", compresslevel=9)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    return http(head + bomb)


def endless_body() -> Behaviour:
    chunk = b"[" * 65_536
    return http(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + chunk + b"\r\n")


def endless_length() -> Behaviour:
    return http(OK + b"Content-Length: 4000000000\r\n\r\n", b" " * 65_536)


def many_headers() -> Behaviour:
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 100) for n in range(100_000))
    return http(OK + lines + b"Content-Length: 2\r\n\r\n[]")


def endless_headers() -> Behaviour:
    return http(b"HTTP/1.1 200 OK\r\nX: ", b"v" * 65_536)


def endless_information() -> Behaviour:
    return http(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 500)


def endless_trailers() -> Behaviour:
    return http(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"v" * 60_000 + b"\r\n")


def body_of(body: bytes) -> Behaviour:
    return http(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def slow_drip(pause_s: float) -> Behaviour:
    """Sends one byte at a time, each before a timeout for the next one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


async def _send_much(writer: asyncio.StreamWriter, part: bytes) -> None:
    writer.write(part * (65_536 // len(part) + 1))
    await writer.drain()
    # The other end runs on the same event loop.
    await asyncio.sleep(0)


async def _packet(reader: asyncio.StreamReader) -> bytes:
    await reader.readexactly(1)
    length, shift = 0, 0
    while True:
        [byte] = await reader.readexactly(1)
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return await reader.readexactly(length)


def mqtt(*parts: bytes, accepts: bool = True) -> Behaviour:
    """Accepts a client and sends the parts; the last one is repeated without end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _packet(reader)
        if accepts:
            writer.write(ACCEPTED)
            await _packet(reader)
            writer.write(SUBSCRIBED)
            await _packet(reader)
        for part in parts[:-1]:
            writer.write(part)
            await writer.drain()
        while True:
            await _send_much(writer, parts[-1])

    return answer


def length_of(size: int) -> bytes:
    encoded = bytearray()
    while True:
        size, low = divmod(size, 128)
        encoded.append(low | 0x80 if size else low)
        if not size:
            return bytes(encoded)


def message(topic: bytes, payload: bytes, *, kind: int = 0x30) -> bytes:
    identifier = b"\x00\x01" if kind & 0x06 else b""
    body = len(topic).to_bytes(2) + topic + identifier + b"\x00" + payload
    return bytes((kind,)) + length_of(len(body)) + body
