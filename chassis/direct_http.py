"""Requests that are handed over by the HTTP server itself, without ASGI.

A whole fleet may ask at the same time, and then the processor's time goes here. Per request ASGI
costs a task, an event, a scope, four messages and two writes; together with a framework's routing
that is most of what a registration costs. So what a process serves by the thousand passes another
way: uvicorn's protocol hands the request over where it would have started an ASGI task, and takes
the answer as bytes. Everything else about a connection is uvicorn's: parsing, TLS, keep-alive,
pipelining, the end.

The same makes it cheap to notice a client that leaves: what it waited for is given up at once.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, cast

import httptools
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Requests of one connection that wait for the one before them.
MAX_PIPELINED = 8
# It has no body, and a length would be that of a 200 (RFC 9110, section 8.6).
NOT_MODIFIED = HTTPStatus.NOT_MODIFIED.value

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Head(Struct):
    """What is known of a request before any of its body. Names of headers are in lower case."""

    method: bytes
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None

    def __repr__(self) -> str:
        """Without what may be a secret."""
        return f"Head({self.method!r}, from {self.client})"


class Reply(NamedTuple):
    """An answer as it is sent; `head` is its header lines, each with its end."""

    status: int
    head: bytes
    body: bytes


class Handler(Protocol):
    """Whoever serves one request. None of these may raise."""

    max_body_bytes: int

    def admit(self) -> Reply | None:
        """What is answered before any of the body is read; None where it is to be read."""

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        """Calls `answer` once, now or later; `body` is None where it is too long."""

    def leave(self) -> None:
        """The client has left, having asked. It may be told so twice."""


class Handlers(Protocol):
    """All that is served this way."""

    def find(self, head: Head) -> Handler | None:
        """A handler for this request; None where ASGI serves it."""


class Exchange:
    """One request and its answer; stands where uvicorn keeps its `RequestResponseCycle`.

    Of that it has what the protocol uses. `message_event` is the exchange itself: it is `set` when
    a part of the body has come, when the whole has, and when the client has left.
    """

    def __init__(self, protocol: "DirectProtocol", head: Head, handler: Handler) -> None:
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = protocol.is_kept_alive()
        self._protocol = protocol
        self._head = head
        self._handler = handler
        self._expects_continue = protocol.is_asked_to_continue()
        self._is_begun = False
        self._is_asked = False

    @property
    def message_event(self) -> "Exchange":
        """Itself; an attribute would be a cycle, for the garbage collector to find."""
        return self

    def begin(self) -> None:
        """It is this request's turn on its connection."""
        if self.disconnected:
            return
        self._is_begun = True
        refused = self._handler.admit()
        if refused is not None:
            self._answer(refused)
            return
        if self._expects_continue and self._announces_too_much():
            self._ask(None)
            return
        if self._expects_continue and self.more_body:
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.set()

    def set(self) -> None:
        """Something has happened."""
        if self.disconnected:
            if self._is_asked:
                self._handler.leave()
        elif not self._is_begun or self._is_asked or self.response_complete:
            return
        elif len(self.body) > self._handler.max_body_bytes:
            self._ask(None)
        elif not self.more_body:
            self._ask(bytes(self.body))
        elif self.body:
            # uvicorn holds a client back that sends faster than its body is taken.
            self._protocol.go_on_reading()

    def _announces_too_much(self) -> bool:
        """Asked for a client that waits: any other is refused when too much has come."""
        lengths = [value for name, value in self._head.headers if name == b"content-length"]
        # The parser lets in nothing but digits.
        return any(int(length) > self._handler.max_body_bytes for length in lengths)

    def _ask(self, body: bytes | None) -> None:
        self._is_asked = True
        self._handler.ask(body, self._answer)

    def _answer(self, reply: Reply) -> None:
        if self.disconnected:
            return
        protocol = self._protocol
        parts = [
            _STATUS_LINES[reply.status],
            *(b"%b: %b\r\n" % header for header in protocol.server_state.default_headers),
            reply.head,
        ]
        if reply.status != NOT_MODIFIED:
            parts.append(b"content-length: %d\r\n" % len(reply.body))
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self._head.method != b"HEAD":
            parts.append(reply.body)
        protocol.transport.write(b"".join(parts))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class DirectProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a way of its own for what `handlers` serve."""

    def __init__(self, *, handlers: Handlers, leaving: asyncio.Event, **settings: Any) -> None:
        """`leaving` is set when the process is about to stop: then connections end.

        `settings` are those that uvicorn gives its protocols.
        """
        super().__init__(**settings)
        self._handlers = handlers
        self._leaving = leaving
        # The one whose turn it is; `cycle` is the one that was read last.
        self._current: Exchange | None = None
        # Whether what still comes is of no protocol that is spoken here.
        self._is_deaf = False

    def is_kept_alive(self) -> bool:
        """Whether the connection outlives the request whose head has just been read."""
        return bool(
            self.parser.get_http_version() != "1.0"
            and self.parser.should_keep_alive()
            and not self._leaving.is_set()
            and not self._is_deaf
        )

    def is_asked_to_continue(self) -> bool:
        """Whether the client waits with the body; HTTP/1.0 cannot (RFC 9110, section 10.1.1)."""
        return self.expect_100_continue and self.parser.get_http_version() != "1.0"

    def go_on_reading(self) -> None:
        """Takes more from a client that takes its answers too."""
        if not self.flow.write_paused:
            self.flow.resume_reading()

    def connection_made(self, transport: Any) -> None:
        """Called when a client has come."""
        super().connection_made(transport)
        self._wait_for_client()

    def data_received(self, data: bytes) -> None:
        """Called with what the client sends."""
        if not self._is_deaf:
            super().data_received(data)
            self._wait_for_client()

    def _wait_for_client(self) -> None:
        """Not for ever, where it is the client's turn: uvicorn looks at the time between requests.

        So whoever says nothing, or stops in the middle of a request, does not keep a connection.
        """
        is_its_turn = self.cycle is None or self.cycle.response_complete or self.cycle.more_body
        if is_its_turn and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Called when nothing has come for so long."""
        self.timeout_keep_alive_task = None
        if self.flow.read_paused:
            # It may have sent much that nobody has taken yet.
            self._wait_for_client()
        else:
            super().timeout_keep_alive_handler()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self.parser.should_upgrade():
            # There is no other protocol here. The parser skips the body of such a request and
            # would take it for the next one, so this is the last that it reads.
            self._is_deaf = True
        head = self._read_head()
        handler = self._handlers.find(head)
        if handler is None:
            super().on_headers_complete()
            if self.cycle is not None and not self.is_kept_alive():
                self.cycle.keep_alive = False
            return
        before = self.cycle
        exchange = Exchange(self, head, handler)
        self.cycle = cast("RequestResponseCycle", exchange)
        if before is None or before.response_complete:
            self._current = exchange
            exchange.begin()
        else:
            # Pipelined: uvicorn starts it when the one before has been answered.
            self.pipeline.appendleft((self.cycle, self.app))
            if self._is_ahead():
                self.flow.pause_reading()

    def _read_head(self) -> Head:
        if self.url.startswith(b"/"):
            path, _, query = self.url.partition(b"?")
        else:
            url = httptools.parse_url(self.url)
            path, query = url.path or b"", url.query or b""
        # A copy: the parser adds trailers to the protocol's.
        return Head(self.parser.get_method(), path, query, list(self.headers), self.client)

    def _is_ahead(self) -> bool:
        """Whether the client has asked so much more than was answered that it must wait.

        Until then it is read on, for a client that leaves is noticed by reading.
        """
        return len(self.pipeline) >= MAX_PIPELINED

    def _unsupported_upgrade_warning(self) -> None:
        """Called for each client that asks for another protocol; that is no news for the log."""

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Exchange):
            self._current = cycle
            # Not at once: the one before is still being answered, further up the stack.
            self.loop.call_soon(cycle.begin)
        else:
            self._current = None
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Called when a request has been answered; no more are read than are answered."""
        super().on_response_complete()
        if self.flow.write_paused or self._is_ahead():
            self.flow.pause_reading()

    def pause_writing(self) -> None:
        """Called when the client takes its answers more slowly than it asks."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Called when it has caught up."""
        super().resume_writing()
        if not self._is_ahead():
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection has ended; uvicorn tells the request that was read last."""
        current = self._current
        if current is not None and not current.response_complete:
            current.disconnected = True
            current.set()
        self.pipeline.clear()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
