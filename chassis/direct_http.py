"""Serves HTTP requests with handlers, without ASGI. If a whole fleet sends requests at the same
time, the HTTP server uses most of the processor time. With ASGI, each request needs a task, an
event, a scope, four messages and two writes; with a framework's routing, that is most of the cost
of a registration. So frequent requests are served differently: the connection
(`chassis/http_connection.py`) gives the request to a handler instead of starting an ASGI task, and
gets the answer as bytes. If a client disconnects, its call is cancelled at once, which costs
little.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

# A 304 has no body, and its Content-Length would mean the length of a 200 (RFC 9110, section 8.6).
NOT_MODIFIED = HTTPStatus.NOT_MODIFIED.value

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Head(Struct):
    """The head of a request. Names of headers are in lower case.

    `path` is in its normal form (`chassis/http_target.py`).
    """

    method: bytes
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None

    def __repr__(self) -> str:
        """Shows nothing that may be a secret."""
        return f"Head({self.method!r}, from {self.client})"


class Reply(NamedTuple):
    """An answer as it is sent. `head` holds the header lines, each with its line end."""

    status: int
    head: bytes
    body: bytes


class Handler(Protocol):
    """Serves one request. The methods must not raise."""

    max_body_bytes: int

    def admit(self) -> Reply | None:
        """An answer before the body is read; None if the body must be read."""

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        """Calls `answer` once, now or later; `body` is None if it is too long."""

    def leave(self) -> None:
        """The client disconnected after `ask`. May be called twice."""


class Handlers(Protocol):
    """The handlers of all requests that are served without ASGI."""

    def find(self, head: Head) -> Handler | None:
        """A handler for this request; None if ASGI serves it."""


class Connection(Protocol):
    """The part of a connection that an exchange uses."""

    transport: Any

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every answer."""

    def is_kept_alive(self) -> bool:
        """Whether the connection outlives the request whose head has just been read."""

    def announced_bytes(self) -> int | None:
        """The length of the body that is being read; None if it is chunked."""

    def ends_after(self, cycle: Any) -> bool:
        """Whether an answer to `cycle` before the end of its body ends the connection."""

    def go_on_reading(self) -> None:
        """Reads more from the client."""

    def end(self) -> None:
        """Closes the connection after the client has had time to read the answer."""

    def on_response_complete(self) -> None:
        """The answer has been written."""


def rendered(
    reply: Reply, defaults: list[tuple[bytes, bytes]], *, keep_alive: bool, has_body: bool = True
) -> bytes:
    """The bytes of the answer. `has_body` is false for an answer to HEAD."""
    parts = [
        _STATUS_LINES[reply.status],
        *(b"%b: %b\r\n" % header for header in defaults),
        reply.head,
    ]
    if reply.status != NOT_MODIFIED:
        parts.append(b"content-length: %d\r\n" % len(reply.body))
    parts.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    if has_body:
        parts.append(reply.body)
    return b"".join(parts)


class Exchange:
    """One request and its answer, in place of uvicorn's `RequestResponseCycle` for ASGI; it has the
    attributes that the connection uses. `message_event` is the exchange itself: it is `set` when a
    part of the body has arrived, when the body is complete, and when the client has disconnected.
    """

    response_started = False

    def __init__(
        self, connection: Connection, head: Head, handler: Handler, *, expects: bool
    ) -> None:
        """`expects` says whether the client waits for `100 Continue` before it sends the body."""
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = connection.is_kept_alive()
        self.expects_continue = expects
        self._connection = connection
        self._head = head
        self._handler = handler
        self._is_begun = False
        self._is_asked = False

    @property
    def message_event(self) -> "Exchange":
        """Returns itself. An attribute would create a reference cycle."""
        return self

    def begin(self) -> None:
        """Starts the request, after the earlier requests of the connection were answered."""
        if self.disconnected:
            return
        self._is_begun = True
        refused = self._handler.admit()
        if refused is not None:
            self._answer(refused)
            return
        if self.more_body and self.expects_continue:
            length = self._connection.announced_bytes()
            if length is not None and length > self._handler.max_body_bytes:
                # If the client does not wait for `100 Continue`, its request is refused once the
                # body is too long.
                self._ask(None)
                return
            self.expects_continue = False
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.set()

    def set(self) -> None:
        """Handles a change of the exchange."""
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
            # Reading pauses if the client sends faster than the body is processed.
            self._connection.go_on_reading()

    def _ask(self, body: bytes | None) -> None:
        self._is_asked = True
        self._handler.ask(body, self._answer)

    def _answer(self, reply: Reply) -> None:
        if self.disconnected:
            return
        connection = self._connection
        if self.more_body and connection.ends_after(self):
            self.keep_alive = False
        connection.transport.write(
            rendered(
                reply,
                connection.default_headers,
                keep_alive=self.keep_alive,
                has_body=self._head.method != b"HEAD",
            )
        )
        self.response_complete = True
        if not self.keep_alive:
            connection.end()
        connection.on_response_complete()
