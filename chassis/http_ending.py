"""The end of an HTTP server's connection, and the time limits for its client.

A connection ends in such a way that the client can read the last answer before it closes.
"""

import asyncio
import math
from collections import deque
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from chassis.direct_http import Exchange, Reply, rendered
from chassis.http_asgi import AsgiCycle
from chassis.http_context import Context
from chassis.http_reading import RequestReader

Cycle = Exchange | AsgiCycle


class BoundedConnection(asyncio.Protocol):
    """The state of a connection, its deadlines and its end. `HttpConnection` serves requests."""

    transport: Any
    flow: FlowControl
    _reader: RequestReader

    def __init__(self, context: Context, host: bytes | str | None) -> None:
        """`host` is the host for which the connection is counted already; None if it is not."""
        self.context = context
        # Requests that wait for earlier ones, the oldest at the right end.
        self.pipeline: deque[Cycle] = deque()
        # The request that was read last, and the one that is being served.
        self.cycle: Cycle | None = None
        self._current: Cycle | None = None
        self._loop = asyncio.get_running_loop()
        self._limits = context.limits
        self._host = host
        # Received bytes that are not parsed, because the client has too many unanswered requests.
        self._unread = b""
        # The connection is kept only until the client has read the last answer.
        self._is_lingering = False
        # Further bytes cannot be parsed.
        self._is_broken = False
        # The refusal that is written when all earlier requests have been answered.
        self._refusal: Reply | None = None
        self._dropped_bytes = 0
        # The time at which the incomplete head or body began.
        self._since: float | None = None
        self._stalled_at = 0.0
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every answer, which is the date only."""
        return self.context.state.default_headers

    def end(self) -> None:
        """Closes the connection after the client has had time to read its answer.

        If the server closed while the client still sends, the connection would be reset, and the
        client might not get the answer. So the server first closes its own direction, if it can,
        and drops the client's bytes for a while.
        """
        if self._is_lingering or self.transport.is_closing():
            return
        self._reader.is_finished = True
        is_sending = not self._reader.is_in_head or self._is_broken
        has_more = is_sending or self._unread or self._dropped_bytes
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

    def _is_under_way(self) -> bool:
        return self._current is not None and not self._current.response_complete

    def _refuse(self, status: int) -> None:
        """Ends the connection with an answer, which follows the answers to earlier requests."""
        self._reader.is_finished = self._is_broken = True
        self._unread = b""
        refusal = self.context.refusal(status)
        cycle = self.cycle
        if not self._reader.is_in_head and cycle is not None:
            # The error is in the body of the request that was read last.
            if cycle.response_complete or cycle.response_started:
                self.end()
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                # That request still waits for earlier ones. The newest is at the left.
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
        """Drops bytes after the last request, and the rest of a body that was answered early."""
        self._dropped_bytes += len(data)
        if self._dropped_bytes > self._limits.linger_bytes:
            self.transport.abort()
        elif self._is_lingering and not self._is_broken and not self._reader.is_in_head:
            self._is_broken = not self._reader.skip(data)

    def _wait(self) -> None:
        """Sets the time by which the client must send or read more. There is none while the server
        works.
        """
        now, limits = self._loop.time(), self._limits
        if self._host is None:
            return
        if self._is_lingering:
            deadline = min(now + limits.quiet_s, (self._since or now) + limits.linger_s)
        elif self.transport.is_closing():
            # Wait until all that was written is sent.
            deadline = now + limits.unread_s
        elif self.flow.write_paused:
            deadline = self._stalled_at + limits.unread_s
        elif not self._reader.is_in_head:
            if self.cycle is not self._current or self._reader.is_finished:
                deadline = math.inf
            else:
                self._since = now if self._since is None else self._since
                allowed = limits.body_s + self._reader.body_bytes / limits.body_bytes_per_s
                deadline = min(self._since + allowed, now + limits.idle_s)
        elif self._is_under_way():
            deadline = math.inf
        elif self._reader.url or self._reader.head_bytes:
            self._since = now if self._since is None else self._since
            deadline = self._since + min(limits.head_s, limits.idle_s)
        else:
            deadline = now + limits.idle_s
        self._deadline = deadline
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = (
                self._loop.call_at(deadline, self._check_deadline),
                deadline,
            )

    def _check_deadline(self) -> None:
        """Ends the connection if the deadline has passed; if it was moved, waits again."""
        self._timer, self._timer_at = None, math.inf
        now, deadline = self._loop.time(), self._deadline
        if now < deadline:
            if deadline < math.inf:
                self._timer, self._timer_at = (
                    self._loop.call_at(deadline, self._check_deadline),
                    deadline,
                )
        elif self._is_lingering or self.transport.is_closing() or self.flow.write_paused:
            self.transport.abort()
        elif self.flow.read_paused:
            # The client may have sent bytes that were not read yet.
            self._since = None
            self._wait()
        elif self._reader.is_in_head and not self._reader.url and not self._reader.head_bytes:
            self.transport.close()
        else:
            self._refuse(408)
            self._wait()
