"""HTTP/1.1 connections: heads, bodies with a length or in chunks, and pipelining.

The requests that are read may not depend on how the bytes arrive. Where h11, which is another
parser, reads requests too, it must read the same ones: a request that two parsers of one connection
read differently can be smuggled past one of them.
"""

import asyncio
from typing import Any, NamedTuple

import h11
import uvicorn
from uvicorn.server import ServerState

from chassis.direct_http import Head, Reply
from chassis.http_connection import HttpConnection
from chassis.http_context import Context
from chassis.http_limits import Connections, HttpLimits
from chassis.http_server import plain_refusal
from chassis.http_target import BadTarget, Target, target_of
from tests.fuzz.given import chosen
from tests.http_server import statuses

PIECES = (1, 2, 3, 7, 16, 61, 256, 1_000)
# Turns of the event loop after which nothing is under way any more.
TURNS = 6


def _seeds() -> tuple[bytes, ...]:
    host = b"Host: h\r\n"
    direct, asgi = b"POST /direct HTTP/1.1\r\n" + host, b"POST /asgi HTTP/1.1\r\n" + host
    chunked = b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nabcde\r\n1\r\nf\r\n0\r\nX: y\r\n\r\n"
    length = b"Content-Length: 5\r\n\r\nabcde"
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    found = [
        *(one + body for one in (direct, asgi) for body in (chunked, length)),
        (direct + length) * 3 + (asgi + chunked) * 2,
        b"GET /direct/%7euser?a=%20 HTTP/1.1\r\n" + host + b"\r\n",
        b"GET http://h:1/direct HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n" + direct + length,
        direct + upgrade + length + direct + chunked,
        asgi + b"Upgrade: websocket\r\nConnection: upgrade\r\n" + chunked + asgi + length,
        direct + b"Expect: 100-continue\r\n" + length,
        asgi + b"Expect: 100-continue\r\n" + length,
        direct + b"Content-Length: 5\r\n" + chunked,
        direct + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HEAD /direct HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        b"POST /direct/refused HTTP/1.1\r\n" + host + length + direct + length,
        b"CONNECT h:1 HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /direct\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\nGET /direct HTTP/1.1\r\nhost : h\r\n folded\r\n\r\n",
    ]
    return tuple(bytes((index % len(PIECES),)) + one for index, one in enumerate(found))


SEEDS = _seeds()
WORDS = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    *(b"Content-Length: 0\r\n", b"Content-Length: +5\r\n", b"Content-Length: 0x5\r\n"),
    *(b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n"),
    *(b"Upgrade: h2c\r\n", b"Upgrade: TLS/1.0\r\n", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/0.9"),
    *(b"Host: h\r\n", b"Host: [::1]:80\r\n", b" ", b"\t", b"\0", b"/asgi", b"/direct", b"5\r\n"),
    *(b"ffffffffffffffff\r\n", b"00000005\r\n", b";a=b", b"%2F", b"#", b"\x0b", b"\xff", b"X: y"),
)


class Read(NamedTuple):
    """A request as a handler saw it."""

    method: bytes
    path: str
    query: bytes
    body: bytes


def read_of(method: bytes, target: Target | Head, body: bytes) -> Read:
    return Read(method, target.path.decode(errors="replace"), target.query, body)


class Direct:
    """Answers with a number; where the path says so, it refuses before the body is read."""

    max_body_bytes = 64 * 1024

    def __init__(self, head: Head, read: list[Read]) -> None:
        self._head = head
        self._read = read

    def admit(self) -> Reply | None:
        return Reply(401, b"", b"no") if self._head.path.endswith(b"/refused") else None

    def ask(self, body: bytes | None, answer: Any) -> None:
        self._read.append(read_of(self._head.method, self._head, body or b""))
        answer(Reply(200, b"", b"1"))

    def leave(self) -> None:
        """Has nothing to cancel."""


class Served:
    """The requests of one connection, those of `Direct` and those of the ASGI application."""

    def __init__(self) -> None:
        self.read: list[Read] = []

    def find(self, head: Head) -> Direct | None:
        return Direct(head, self.read) if head.path.startswith(b"/direct") else None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body, has_more = b"", True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, has_more = body + message["body"], message["more_body"]
        self.read.append(Read(scope["method"].encode(), scope["path"], scope["query_string"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"2"})


class Wire:
    """A transport whose other end is the fuzzer."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.is_reading = True
        self.connection: HttpConnection | None = None
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing and self.connection is not None:
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)
        self._is_closing = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Does nothing: the fuzzer reads everything anyway."""

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


async def talk(sent: bytes, size: int) -> tuple[list[Read], list[int]]:
    """What was read and the statuses of the answers; `sent` arrives in pieces of `size`."""
    served, wire = Served(), Wire()
    CONFIG.loaded_app = served.app
    connections = Connections(LIMITS)
    context = Context(
        CONFIG, ServerState(), served, LIMITS, connections, plain_refusal, asyncio.Event()
    )
    connection = wire.connection = HttpConnection(context)
    connection.connection_made(wire)
    for at in range(0, len(sent), size):
        for _ in range(10 * TURNS):
            if wire.is_reading:
                break
            await asyncio.sleep(0)
        assert wire.is_reading, "it reads no more"
        if wire.is_closing():
            break
        connection.data_received(sent[at : at + size])
        if context.state.tasks or connection.pipeline:
            await asyncio.sleep(0)
    for _ in range(TURNS * (2 + len(context.state.tasks) + len(connection.pipeline))):
        await asyncio.sleep(0)
    wire.close()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert not context.state.tasks, "a request never ends"
    assert not context.state.connections
    return served.read, statuses(bytes(wire.sent))


def as_h11_reads(sent: bytes) -> list[Read]:
    """The requests that h11 reads until it rejects something."""
    other, found, head, body = h11.Connection(h11.SERVER), [], None, b""
    other.receive_data(sent)
    try:
        while True:
            event = other.next_event()
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                found.append(read_of(head.method, target_of(head.target), body))
                other.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                other.send(h11.EndOfMessage())
                other.start_next_cycle()
            else:
                return found
    except (h11.ProtocolError, BadTarget):
        return found


LIMITS = HttpLimits()
CONFIG = uvicorn.Config(Served().app, interface="asgi3", ws="none", lifespan="off", log_config=None)
CONFIG.load()
LOOP = asyncio.new_event_loop()


def attempt(data: bytes) -> None:
    size, sent = chosen(data, PIECES)
    read, answers = LOOP.run_until_complete(talk(sent, len(sent) or 1))
    assert all(100 <= status < 500 for status in answers), answers
    again = LOOP.run_until_complete(talk(sent, size))
    assert all(100 <= status < 500 for status in again[1]), again[1]
    # Whether a body has been read before an early answer depends on when it arrives.
    if not any(one.path.endswith("/refused") for one in read) and 401 not in answers + again[1]:
        assert (read, answers) == again
        assert answers.count(200) == len(read)
        for ours, theirs in zip(read, as_h11_reads(sent), strict=False):
            assert ours == theirs
