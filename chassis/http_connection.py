"""One connection of an HTTP server: what it reads, how long it waits, and how it ends.

llhttp parses, in its strict mode: it refuses bare line feeds, folded lines, spaces before colons
and lengths that contradict each other. What it leaves open is decided here: the number of bytes and
seconds, RFC 9112's rules for `Host` and `Transfer-Encoding`, offers of other protocols, which are
ignored, and that a client can read the answer before the connection closes.

Requests are answered one after the other. `cycle` is the one that was read last, and `pipeline` has
those that wait, the oldest at its right end.
"""

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from chassis.direct_http import Exchange, Handlers, Head, Reply, rendered
from chassis.http_limits import Connections, HttpLimits, close_idle
from chassis.http_target import BadTarget, Target, target_of

log = structlog.get_logger(__name__)

# Requests of one connection that wait for the one before them.
MAX_PIPELINED = 8
# As much is parsed at once, so that a flood of small requests becomes no flood of objects.
SLICE_BYTES = 4096
# The rest of a body that is read for the sake of the connection when its request was answered.
REST_BYTES = 64 * 1024
# RFC 9110, section 7.2: uri-host [":" port]; empty where the target has no authority.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
WATCHED = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
VERSIONS = frozenset({"1.0", "1.1"})


class Refused(Exception):
    """The request is answered with `status`, and the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Context:
    """What the connections of a server have in common."""

    config: Config
    state: ServerState
    handlers: Handlers
    limits: HttpLimits
    connections: Connections
    # The answer to what cannot be read or comes too slowly: 400, 408, 431 or 500.
    refusal: Callable[[int], Reply]
    # Set when the process is about to stop.
    leaving: asyncio.Event


class AsgiCycle(RequestResponseCycle):
    """A request that ASGI serves, on a connection that ends as ours do."""

    connection: "HttpConnection"

    async def send(self, message: Any) -> None:
        """Adds that the connection ends where the body has not been read."""
        starts = not self.response_started and message["type"] == "http.response.start"
        if starts and self.more_body and self.connection.ends_after(self):
            self.keep_alive = False
        await super().send(message)

    @property
    def expects_continue(self) -> bool:
        """Whether the client still waits with the body."""
        return self.waiting_for_100_continue


class _Closing:
    """The transport as a cycle knows it: its closing is the connection's."""

    def __init__(self, connection: "HttpConnection") -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.end


Cycle = Exchange | AsgiCycle


class HttpConnection(asyncio.Protocol):
    """Reads requests, and has each served by a handler or by ASGI."""

    def __init__(self, context: Context, host: bytes | str | None = None) -> None:
        """`host` is what the connection is counted as where it has been counted already."""
        self.context = context
        self.pipeline: deque[Cycle] = deque()
        self.cycle: Cycle | None = None
        # The one whose turn it is.
        self._current: Cycle | None = None
        self._loop = asyncio.get_running_loop()
        self._limits = context.limits
        self._host = host
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        # The request that is being read.
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._hosts = 0
        self._last_host: bytes | None = None
        self._has_coding = self._expects_continue = self._is_upgrade = False
        self._is_in_head = True
        # Of its head, before what is being parsed.
        self._head_bytes = 0
        self._heads_read = 0
        self._length: int | None = 0
        self._body_bytes = self._framing_bytes = self._rest_bytes = 0
        # Received and not parsed, while the client is ahead.
        self._unread = b""
        self._is_parsing = False
        # Nothing that still comes is read as a request.
        self._is_deaf = self._is_lingering = self._is_broken = False
        self._refusal: Reply | None = None
        self._dropped_bytes = 0
        # When the head or the body that is not complete began.
        self._since: float | None = None
        self._stalled_at = 0.0
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        self.transport = transport
        self.flow = FlowControl(transport)
        self.client = get_remote_addr(transport)
        context = self.context
        if self._host is None:
            self._host = context.connections.enter(self.client[0] if self.client else "")
        if context.connections.should_search():
            close_idle(context.state.connections, self._loop.time())
        if self._host is None:
            self._is_deaf = True
            transport.abort()
            return
        context.state.connections.add(cast("Any", self))
        self.server = get_local_addr(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._wait()

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self._is_deaf:
            self._drop(data)
        elif self._unread or len(data) > SLICE_BYTES or self._is_ahead():
            self._unread += data
            self._parse_unread()
        else:
            self._is_parsing = True
            read = self._parse(data)
            self._is_parsing = False
            if read < len(data):
                self._unread = data[read:]
                self._parse_unread()
        self._wait()

    def eof_received(self) -> None:
        """The client sends no more: asyncio closes the connection."""

    def pause_writing(self) -> None:
        """The client takes its answers more slowly than it asks."""
        self._stalled_at = self._loop.time()
        self.flow.pause_writing()
        self.flow.pause_reading()
        self._wait()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.flow.resume_writing()
        self._parse_unread()
        if not self._is_ahead():
            self.flow.resume_reading()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_deaf = True
        if self._host is None:
            return
        self.context.connections.leave(self._host)
        self.context.state.connections.discard(cast("Any", self))
        self.pipeline.clear()
        self._unread = b""
        for cycle in (self._current, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()

    # What the server and the requests call.

    def shutdown(self) -> None:
        """The server stops: what is under way is answered, and then the connection ends."""
        if self.cycle is None or self.cycle.response_complete:
            self.end()
        else:
            self.cycle.keep_alive = False

    def close_if_idle_since(self, then: float) -> None:
        """Closes it where nothing is under way and its client has been silent since `then`."""
        is_idle = self._is_in_head and not self._is_under_way() and not self._is_lingering
        if is_idle and self._deadline - self._limits.idle_s <= then:
            self.transport.close()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Those of every answer: the date."""
        return self.context.state.default_headers

    def is_kept_alive(self) -> bool:
        """Whether the connection outlives the request whose head has just been read."""
        return bool(
            self._parser.should_keep_alive()
            and self._parser.get_http_version() != "1.0"
            and not self.context.leaving.is_set()
            and not self.context.connections.is_crowded
        )

    def announced_bytes(self) -> int | None:
        """The length of the body that is being read; None where it is chunked."""
        return self._length

    def ends_after(self, cycle: Cycle) -> bool:
        """Whether an answer to `cycle` before the end of its body ends the connection.

        A client that waits may send the body or not (RFC 9110, section 10.1.1), and more than a
        little is not read for nothing.
        """
        if cycle is not self.cycle or cycle.expects_continue:
            return True
        # Nobody knows where a chunked one ends: see `on_body`.
        return self._length is not None and self._length - self._body_bytes > REST_BYTES

    def go_on_reading(self) -> None:
        """Takes more from a client that takes its answers too."""
        if not self.flow.write_paused:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """A request has been answered: the next is served, or the last refusal is written."""
        self.context.state.total_requests += 1
        if self.transport.is_closing() or self._is_lingering:
            return
        if self.pipeline:
            cycle = self.pipeline.pop()
            self._current = cycle
            if isinstance(cycle, Exchange):
                # Not at once: the one before is still being answered, further up the stack.
                self._loop.call_soon(cycle.begin)
            else:
                self._start_asgi_task(cycle)
        elif self._refusal is not None:
            self._write_refusal(self._refusal)
            return
        if self._unread:
            self._parse_unread()
        if self.flow.write_paused or self._is_ahead():
            self.flow.pause_reading()
        elif self.flow.read_paused:
            self.flow.resume_reading()
        if not self._is_parsing:
            self._wait()

    def end(self) -> None:
        """Closes the connection when the client has had the time to read its answer.

        Closing while it still sends would reset the connection, and the answer might be lost on its
        way. So the client hears where it can that nothing more comes, and what it sends is dropped
        for a while.
        """
        if self._is_lingering or self.transport.is_closing():
            return
        self._is_deaf = True
        has_more = not self._is_in_head or self._is_broken or self._unread or self._dropped_bytes
        self._unread = b""
        if not has_more:
            self.transport.close()
            self._wait()
            return
        self._is_lingering = True
        self._since = self._loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._wait()

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if self._is_in_head:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head. One after the body (RFC 9110, section 6.5.1) is ignored."""
        if not self._is_in_head:
            return
        name = name.lower()
        if name in WATCHED:
            self._watch(name, value)
        self._headers.append((name, value))

    def _watch(self, name: bytes, value: bytes) -> None:
        """A field that says how to read the request. Raises `Refused`."""
        if name == b"host":
            self._hosts += 1
            if value != self._last_host:
                if not HOST.fullmatch(value):
                    raise Refused(400)
                self._last_host = value
        elif name == b"content-length":
            # The parser lets in one, of nothing but digits.
            self._length = int(value)
        elif name == b"transfer-encoding":
            if self._has_coding or value.lower() != b"chunked":
                raise Refused(400)
            self._has_coding = True
        elif name == b"expect":
            self._expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """The head has been read: its request begins, or waits for its turn."""
        if not self._is_in_head:
            return
        if self._is_deaf:
            # A request behind the last one.
            raise Refused(400)
        parser = self._parser
        version, method = parser.get_http_version(), parser.get_method()
        self._require_sense(version, method)
        target = self._target(method)
        self._is_in_head = False
        self._heads_read += 1
        self._body_bytes = self._framing_bytes = self._rest_bytes = 0
        if self._has_coding:
            self._length = None
        self._is_upgrade = parser.should_upgrade() and self._length != 0
        expects = self._expects_continue and version == "1.1"
        head = Head(method, target.path, target.query, self._headers, self.client)
        handler = self.context.handlers.find(head)
        cycle: Cycle
        if handler is None:
            cycle = self._asgi_cycle(head, version, expects=expects)
        else:
            cycle = Exchange(self, head, handler, expects=expects)
        before, self.cycle = self.cycle, cycle
        if before is not None and not before.response_complete:
            self.pipeline.appendleft(cycle)
            if self._is_ahead():
                self.flow.pause_reading()
            return
        self._current = cycle
        if isinstance(cycle, Exchange):
            cycle.begin()
        else:
            self._start_asgi_task(cycle)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle is None or cycle.disconnected:
            return
        if cycle.response_complete:
            self._rest_bytes += len(body)
            if self._rest_bytes > REST_BYTES:
                self.end()
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The body has been read."""
        if self._is_upgrade or self._is_in_head:
            # The parser leaves the body to the protocol that was offered.
            return
        self._is_in_head = True
        self._url, self._headers, self._hosts = b"", [], 0
        self._has_coding = self._expects_continue = False
        self._head_bytes = self._length = 0
        self._since = None
        cycle = self.cycle
        if cycle is None:
            return
        if not cycle.keep_alive:
            self._is_deaf = True
        if self._is_lingering:
            self.transport.close()
        cycle.more_body = False
        if not cycle.response_complete:
            cycle.message_event.set()

    # Reading.

    def _is_ahead(self) -> bool:
        """Whether the client has asked so much more than was answered that it must wait.

        Until then it is read on, for a client that leaves is noticed by reading.
        """
        return len(self.pipeline) >= MAX_PIPELINED

    def _is_under_way(self) -> bool:
        return self._current is not None and not self._current.response_complete

    def _parse_unread(self) -> None:
        """Parses what has been received, until the client is ahead."""
        if self._is_parsing or not self._unread:
            return
        self._is_parsing = True
        data, self._unread, at = self._unread, b"", 0
        view = memoryview(data)
        try:
            while at < len(data) and not self._is_deaf:
                if self._is_ahead() or self.flow.write_paused:
                    self._unread = data[at:]
                    self.flow.pause_reading()
                    return
                size = SLICE_BYTES
                if not self._is_in_head and self._length is not None and not self._is_upgrade:
                    # To the end of the body, but no further.
                    size = max(1, self._length - self._body_bytes)
                at += self._parse(view[at : at + size])
        finally:
            self._is_parsing = False
        if at < len(data):
            self._drop(view[at:])

    def _parse(self, piece: "bytes | memoryview") -> int:
        """Parses `piece`; returns how many bytes of it have been read."""
        heads_read, body_bytes = self._heads_read, self._body_bytes
        was_in_head = self._is_in_head
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_upgrade:
                self._read_the_body()
            return int(upgrade.args[0])
        except httptools.HttpParserError as error:
            if self._is_deaf:
                # It came behind the last request.
                self._dropped_bytes += len(piece)
                return len(piece)
            cause = error.__context__
            if isinstance(cause, Refused):
                self._refuse(cause.status)
            elif isinstance(error, httptools.HttpParserCallbackError):
                log.exception("a request failed unexpectedly", exc_info=cause or error)
                self._refuse(500)
            else:
                self._refuse(400)
            return len(piece)
        if heads_read != self._heads_read:
            if self._is_in_head and self._url:
                self._head_bytes = self._known_bytes()
        elif was_in_head:
            self._head_bytes += len(piece)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(431)
            elif self._parser.get_http_version() == "0.9":
                # There is no more of it: it has no head.
                self._refuse(400)
        elif self._length is None:
            self._framing_bytes += len(piece) - (self._body_bytes - body_bytes)
            if self._framing_bytes > self._limits.framing_bytes + 8 * self._body_bytes:
                self._refuse(400)
        return len(piece)

    def _known_bytes(self) -> int:
        """The length of the head, as far as it has been parsed."""
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _read_the_body(self) -> None:
        """Goes on after the head of a request that offers another protocol.

        The parser hands the rest of the connection over to that, so a new one takes the body.
        """
        self._is_upgrade = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        framing = (
            b"transfer-encoding: chunked"
            if self._length is None
            else b"content-length: %d" % self._length
        )
        # Its head is not looked at: that of this request has been read.
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)

    def _require_sense(self, version: str, method: bytes) -> None:
        """What RFC 9112 asks of a head besides its grammar. Raises `Refused`."""
        if self._head_bytes + SLICE_BYTES > self._limits.head_bytes:
            line_bytes = len(method) + len(" HTTP/1.1\r\n\r\n") + 1
            if self._known_bytes() + line_bytes > self._limits.head_bytes:
                raise Refused(431)
        if version not in VERSIONS or self._hosts > 1:
            raise Refused(400)
        if version == "1.1" and not self._hosts:  # section 3.2
            raise Refused(400)
        if version == "1.0" and self._has_coding:  # section 6.1
            raise Refused(400)

    def _target(self, method: bytes) -> Target:
        try:
            target = target_of(self._url)
        except BadTarget:
            raise Refused(400) from None
        if target.path == b"*" and method != b"OPTIONS":
            raise Refused(400)
        return target

    def _asgi_cycle(self, head: Head, version: str, *, expects: bool) -> AsgiCycle:
        config = self.context.config
        cycle = AsgiCycle(
            scope={
                "type": "http",
                "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
                "http_version": version,
                "server": self.server,
                "client": self.client,
                "scheme": cast("Any", self.scheme),
                "root_path": "",
                "headers": head.headers,
                "state": {},
                "method": head.method.decode("ascii"),
                "path": head.path.decode(errors="replace"),
                "raw_path": quote(head.path, safe="/%").encode(),
                "query_string": head.query,
            },
            transport=cast("asyncio.Transport", _Closing(self)),
            flow=self.flow,
            logger=cast("Any", _Log()),
            access_logger=cast("Any", None),
            access_log=False,
            default_headers=self.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects,
            keep_alive=self.is_kept_alive(),
            on_response=self.on_response_complete,
        )
        cycle.connection = self
        return cycle

    def _start_asgi_task(self, cycle: AsgiCycle) -> None:
        task = self._loop.create_task(cycle.run_asgi(cast("Any", self.context.config.loaded_app)))
        tasks = self.context.state.tasks
        task.add_done_callback(tasks.discard)
        tasks.add(task)

    # Ending.

    def _refuse(self, status: int) -> None:
        """Ends the connection with an answer, after those to what was asked before."""
        self._is_deaf = self._is_broken = True
        self._unread = b""
        refusal = self.context.refusal(status)
        cycle = self.cycle
        if not self._is_in_head and cycle is not None:
            # The fault is in the body of the request that was read last.
            if cycle.response_complete or cycle.response_started:
                self.end()
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                # It was still waiting for its turn: the newest is at the left.
                self.pipeline.popleft()
            else:
                self._current = None
        if self._is_under_way():
            self._refusal = refusal
        else:
            self._write_refusal(refusal)

    def _write_refusal(self, refusal: Reply) -> None:
        self._refusal = None
        self.transport.write(rendered(refusal, self.default_headers, keep_alive=False))
        self.end()

    def _drop(self, data: "bytes | memoryview") -> None:
        """What comes after the last request, or is left of a body that nobody reads."""
        self._dropped_bytes += len(data)
        if self._dropped_bytes > self._limits.linger_bytes:
            self.transport.abort()
        elif self._is_lingering and not self._is_broken and not self._is_in_head:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._is_broken = True

    # Time.

    def _wait(self) -> None:
        """Sets the time by which the client must have gone on; none while it is our turn."""
        now, limits = self._loop.time(), self._limits
        if self._host is None:
            return
        if self._is_lingering:
            deadline = min(now + limits.quiet_s, (self._since or now) + limits.linger_s)
        elif self.transport.is_closing():
            # Until all that was written is sent.
            deadline = now + limits.unread_s
        elif self.flow.write_paused:
            deadline = self._stalled_at + limits.unread_s
        elif not self._is_in_head:
            if self.cycle is not self._current or self._is_deaf:
                deadline = math.inf
            else:
                self._since = now if self._since is None else self._since
                allowed = limits.body_s + self._body_bytes / limits.body_bytes_per_s
                deadline = min(self._since + allowed, now + limits.idle_s)
        elif self._is_under_way():
            deadline = math.inf
        elif self._url or self._head_bytes:
            self._since = now if self._since is None else self._since
            deadline = self._since + min(limits.head_s, limits.idle_s)
        else:
            deadline = now + limits.idle_s
        self._deadline = deadline
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self._loop.call_at(deadline, self._look), deadline

    def _look(self) -> None:
        """Looks whether the client has had its time; a deadline that moved is waited for again."""
        self._timer, self._timer_at = None, math.inf
        now, deadline = self._loop.time(), self._deadline
        if now < deadline:
            if deadline < math.inf:
                self._timer, self._timer_at = self._loop.call_at(deadline, self._look), deadline
        elif self._is_lingering or self.transport.is_closing() or self.flow.write_paused:
            self.transport.abort()
        elif self.flow.read_paused:
            # It may have sent much that has not been taken yet.
            self._since = None
            self._wait()
        elif self._is_in_head and not self._url and not self._head_bytes:
            self.transport.close()
        else:
            self._refuse(408)
            self._wait()


class _Log:
    """What uvicorn's cycle says of the application, in our log."""

    def error(self, message: str, *values: Any, exc_info: Any = None) -> None:
        """A fault of the application."""
        log.error((message % values).strip(), exc_info=exc_info)
