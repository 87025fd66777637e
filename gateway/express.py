"""The way of the devices' requests through the HTTP server.

A whole fleet may call on its paths at the same time, and there the gateway's processor time goes.
Per request, ASGI costs a task, an event, a scope and four messages; together with a framework's
routing that is most of what a registration costs. So for these paths uvicorn's protocol hands
the request over where it would have started an ASGI task, and takes the answer as bytes.
Everything else about a connection is uvicorn's: parsing, TLS, keep-alive, pipelining, the end.

The same makes it cheap to notice a client that leaves: what it waited for is given up at once.
"""

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from chassis.errors import MooringError
from chassis.log import request_id
from chassis.queue import Call
from chassis.trust import Access
from gateway.access import required
from gateway.problems import Reply, of_device_error, of_exception, refusal, rendered

MAX_BODY_BYTES = 64 * 1024
# Requests of one connection that wait for the one before them.
MAX_PIPELINED = 8
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# It has no body, and a length would be that of a 200 (RFC 9110, section 8.6).
NOT_MODIFIED = HTTPStatus.NOT_MODIFIED.value

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


def request_id_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The caller's own `X-Request-Id` where it is harmless to log, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value
    # Not a secret, and the kernel's randomness would cost twenty times as much.
    return b"%032x" % random.getrandbits(128)


class DeviceRequest(Struct):
    """What a device asks; `uuid` is that of the path, where it has one."""

    method: bytes
    uuid: str
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    # What the device shows, once it has been admitted.
    secret: str = ""
    body: bytes = b""


class Route(Protocol):
    """What is served at one path."""

    methods: Sequence[bytes]
    # What it states, as every route does.
    access: Access

    def admit(self, request: DeviceRequest) -> str:
        """The secret that the device shows; before any of the body is read. Raises why not."""

    def ask(self, request: DeviceRequest) -> "Call[Any, Any]":
        """Passes the question on. Raises what is wrong with the request."""

    def reply(self, request: DeviceRequest, answer: Any) -> Reply:
        """What came of it, as HTTP."""


class Routes(Protocol):
    """All that is served this way."""

    def find(self, path: bytes) -> tuple[Route, str] | None:
        """The route at a path, and the uuid in it; None if the path is not a device's."""


class Exchange:
    """One request and its answer; stands where uvicorn keeps its `RequestResponseCycle`.

    Of that it has what the protocol uses. `message_event` is the exchange itself: it is `set` when
    a part of the body has come, when the whole has, and when the client has left.
    """

    def __init__(self, protocol: "DeviceProtocol", route: Route, uuid: str) -> None:
        # A copy: the parser adds trailers to the protocol's.
        headers = list(protocol.headers)
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = protocol.is_kept_alive()
        self._protocol = protocol
        self._route = route
        self._request = DeviceRequest(protocol.parser.get_method(), uuid, headers, protocol.client)
        self._request_id = request_id_of(headers)
        self._is_begun = False
        self._expects_continue = protocol.is_asked_to_continue()
        self._call: Call[Any, Any] | None = None

    @property
    def message_event(self) -> "Exchange":
        """Itself; an attribute would be a cycle, for the garbage collector to find."""
        return self

    def begin(self) -> None:
        """It is this request's turn on its connection."""
        if self.disconnected:
            return
        self._is_begun = True
        refused = self._attempt(self._admit)
        if refused is not None:
            self._answer(refused)
            return
        if self._expects_continue and self.more_body:
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.set()

    def set(self) -> None:
        """Something has happened."""
        if self.disconnected:
            if self._call is not None:
                self._call.abandon()
        elif not self._is_begun or self.response_complete or self._call is not None:
            return
        elif not self.more_body or len(self.body) > MAX_BODY_BYTES:
            refused = self._attempt(self._ask)
            if refused is not None:
                self._answer(refused)
        elif self.body:
            # uvicorn holds a client back that sends faster than its body is taken.
            self._protocol.go_on_reading()

    def _attempt(self, step: Callable[[], Reply | None]) -> Reply | None:
        """The answer, where `step` has one already or cannot be done."""
        token = request_id.set(self._request_id.decode())
        try:
            return step()
        except MooringError as error:
            return rendered(of_device_error(error))
        except Exception as error:  # noqa: BLE001 - the last resort; what is unexpected is logged
            return rendered(of_exception(error))
        finally:
            request_id.reset(token)

    def _announces_too_much(self) -> bool:
        """Asked for a client that waits: any other is refused when too much has come."""
        lengths = [value for name, value in self._request.headers if name == b"content-length"]
        # The parser lets in nothing but digits.
        return any(int(length) > MAX_BODY_BYTES for length in lengths)

    def _admit(self) -> Reply | None:
        if self._request.method not in self._route.methods:
            allowed = b", ".join(self._route.methods).decode()
            return rendered(refusal(405, headers={"Allow": allowed}))
        required(getattr(self._route, "access", None))
        self._request.secret = self._route.admit(self._request)
        if self._expects_continue and self._announces_too_much():
            return rendered(refusal(413))
        return None

    def _ask(self) -> Reply | None:
        if len(self.body) > MAX_BODY_BYTES:
            return rendered(refusal(413))
        self._request.body = bytes(self.body)
        self._call = self._route.ask(self._request)
        self._call.future.add_done_callback(self._answered)
        return None

    def _answered(self, future: "asyncio.Future[Any]") -> None:
        if self.disconnected or future.cancelled():
            return

        def reply() -> Reply:
            answer = future.result()
            if isinstance(answer, MooringError):
                raise answer
            return self._route.reply(self._request, answer)

        replied = self._attempt(reply)
        if replied is not None:
            self._answer(replied)

    def _answer(self, reply: Reply) -> None:
        protocol = self._protocol
        parts = [
            _STATUS_LINES[reply.status],
            *(b"%b: %b\r\n" % header for header in protocol.server_state.default_headers),
            b"x-content-type-options: nosniff\r\nx-request-id: ",
            self._request_id,
            b"\r\n",
            reply.head,
        ]
        if reply.status != NOT_MODIFIED:
            parts.append(b"content-length: %d\r\n" % len(reply.body))
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self._request.method != b"HEAD":
            parts.append(reply.body)
        protocol.transport.write(b"".join(parts))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class DeviceProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a way of its own for what `routes` serve."""

    def __init__(self, *, routes: Routes, leaving: asyncio.Event, **settings: Any) -> None:
        """`leaving` is set when the gateway is about to stop: then connections end.

        `settings` are those that uvicorn gives its protocols.
        """
        super().__init__(**settings)
        self._routes = routes
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

    def data_received(self, data: bytes) -> None:
        """Called with what the client sends."""
        if not self._is_deaf:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self.parser.should_upgrade():
            # There is no other protocol here. The parser skips the body of such a request and
            # would take it for the next one, so this is the last that it reads.
            self._is_deaf = True
        url = self.url if self.url.startswith(b"/") else httptools.parse_url(self.url).path or b""
        found = self._routes.find(url.partition(b"?")[0])
        if found is None:
            super().on_headers_complete()
            if self.cycle is not None and not self.is_kept_alive():
                self.cycle.keep_alive = False
            return
        before = self.cycle
        exchange = Exchange(self, *found)
        self.cycle = cast("RequestResponseCycle", exchange)
        if before is None or before.response_complete:
            self._current = exchange
            exchange.begin()
        else:
            # Pipelined: uvicorn starts it when the one before has been answered.
            self.pipeline.appendleft((self.cycle, self.app))
            if self._is_ahead():
                self.flow.pause_reading()

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
        super().connection_lost(exc)
