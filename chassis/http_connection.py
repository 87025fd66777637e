"""One connection of an HTTP server, whose requests are answered one after the other."""

from typing import Any, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from chassis.direct_http import Exchange, Head
from chassis.http_asgi import AsgiCycle
from chassis.http_context import Context
from chassis.http_ending import BoundedConnection, Cycle
from chassis.http_limits import close_idle
from chassis.http_reading import SLICE_BYTES, RequestReader, UnreadableRequest

# The most requests of one connection that wait for earlier ones.
MAX_PIPELINED = 8
# The most bytes of a body that are read after its request was answered, to keep the connection.
REST_BYTES = 64 * 1024


class HttpConnection(BoundedConnection):
    """Reads requests, and gives each to a handler or to ASGI."""

    def __init__(self, context: Context, host: bytes | str | None = None) -> None:
        """`host` is the host for which the connection is counted already; None if it is not."""
        super().__init__(context, host)
        self._reader = RequestReader(self, context.limits)
        self._is_parsing = False
        # Bytes of the body that were read after its request was answered.
        self._rest_bytes = 0

    # Called by asyncio.

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
            self._reader.is_finished = True
            transport.abort()
            return
        context.state.connections.add(cast("Any", self))
        self.server = get_local_addr(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._wait()

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self._reader.is_finished:
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
        """The client has closed its direction. asyncio then closes the connection."""

    def pause_writing(self) -> None:
        """The client reads answers more slowly than it sends requests."""
        self._stalled_at = self._loop.time()
        self.flow.pause_writing()
        self.flow.pause_reading()
        self._wait()

    def resume_writing(self) -> None:
        """The client has read enough of the answers."""
        self.flow.resume_writing()
        self._parse_unread()
        if not self._is_ahead():
            self.flow.resume_reading()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._reader.is_finished = True
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

    # Called by the server and by requests.

    def shutdown(self) -> None:
        """The server stops. Requests under way are answered, and then the connection ends."""
        if self.cycle is None or self.cycle.response_complete:
            self.end()
        else:
            self.cycle.keep_alive = False

    def close_if_idle_since(self, then: float) -> None:
        """Closes the connection if it has no request and received nothing since `then`."""
        is_idle = self._reader.is_in_head and not self._is_under_way() and not self._is_lingering
        if is_idle and self._deadline - self._limits.idle_s <= then:
            self.transport.close()

    def is_kept_alive(self) -> bool:
        """Whether the connection outlives the request whose head has just been read."""
        return bool(
            self._reader.is_kept_alive()
            and not self.context.leaving.is_set()
            and not self.context.connections.is_crowded
        )

    def announced_bytes(self) -> int | None:
        """The length of the body that is being read; None if it is chunked."""
        return self._reader.length

    def ends_after(self, cycle: Cycle) -> bool:
        """Whether an answer to `cycle` before the end of its body ends the connection.

        It does if the client waits for `100 Continue`, because it may send the body or not (RFC
        9110, section 10.1.1), and if the rest of the body is too large to be read in vain.
        """
        if cycle is not self.cycle or cycle.expects_continue:
            return True
        # The end of a chunked body is not known in advance: see `body_received`.
        length = self._reader.length
        return length is not None and length - self._reader.body_bytes > REST_BYTES

    def go_on_reading(self) -> None:
        """Reads more, unless the client does not read its answers."""
        if not self.flow.write_paused:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """A request has been answered. Serves the next one, or writes the last refusal."""
        self.context.state.total_requests += 1
        if self.transport.is_closing() or self._is_lingering:
            return
        if self.pipeline:
            cycle = self.pipeline.pop()
            self._current = cycle
            if isinstance(cycle, Exchange):
                # The next request begins later, because the previous one's call is still on the
                # stack.
                self._loop.call_soon(cycle.begin)
            else:
                cycle.begin()
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

    # Called by the reader.

    def head_received(self, head: Head, version: str, *, expects: bool) -> None:
        """The head has been read. Its request begins, or waits for earlier requests."""
        self._rest_bytes = 0
        handler = self.context.handlers.find(head)
        cycle: Cycle
        if handler is None:
            cycle = AsgiCycle(self, head, version, expects=expects)
        else:
            cycle = Exchange(self, head, handler, expects=expects)
        before, self.cycle = self.cycle, cycle
        if before is not None and not before.response_complete:
            self.pipeline.appendleft(cycle)
            if self._is_ahead():
                self.flow.pause_reading()
            return
        self._current = cycle
        cycle.begin()

    def body_received(self, body: bytes) -> None:
        """A part of the body."""
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

    def request_received(self) -> None:
        """The body has been read."""
        self._since = None
        cycle = self.cycle
        if cycle is None:
            return
        if not cycle.keep_alive:
            self._reader.is_finished = True
        if self._is_lingering:
            self.transport.close()
        cycle.more_body = False
        if not cycle.response_complete:
            cycle.message_event.set()

    # Reading.

    def _is_ahead(self) -> bool:
        """Whether the client has so many unanswered requests that reading must pause. Otherwise the
        connection is read all the time, because only reading shows that a client has disconnected.
        """
        return len(self.pipeline) >= MAX_PIPELINED

    def _parse_unread(self) -> None:
        """Parses received bytes, until the client has too many unanswered requests."""
        if self._is_parsing or not self._unread:
            return
        self._is_parsing = True
        data, self._unread, at = self._unread, b"", 0
        view = memoryview(data)
        try:
            while at < len(data) and not self._reader.is_finished:
                if self._is_ahead() or self.flow.write_paused:
                    self._unread = data[at:]
                    self.flow.pause_reading()
                    return
                at += self._parse(view[at : at + self._reader.slice_bytes()])
        finally:
            self._is_parsing = False
        if at < len(data):
            self._drop(view[at:])

    def _parse(self, piece: "bytes | memoryview") -> int:
        """Parses `piece`; returns how many bytes of it have been read."""
        try:
            return self._reader.feed(piece)
        except UnreadableRequest as refused:
            if self._reader.is_finished:
                # These bytes came after the last request of the connection.
                self._dropped_bytes += len(piece)
            else:
                self._refuse(refused.status)
            return len(piece)
