"""A TCP proxy in front of PostgreSQL that cuts or loses connections at the worst moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum
from urllib.parse import urlsplit, urlunsplit


class Cut(Enum):
    """The moment at which a connection is cut while it commits."""

    BEFORE = "before the server hears of the commit"
    AFTER = "after the server has committed, before the client hears of it"


# The bytes with which the client sends the rows of a registration, in a statement that is a
# transaction by itself; and the end of the server's answer: ReadyForQuery, idle.
ROWS = b'"mqtt_password_hash":"'
DONE = b"Z\0\0\0\5I"


class Line:
    """A connection through the proxy."""

    def __init__(self, *, is_lost: bool) -> None:
        # Set when the server has done the commit under way, for a connection that is cut then.
        self.is_awaited = False
        self.done = asyncio.Event()
        # No more bytes are forwarded.
        self.is_lost = is_lost

    async def read(self, end: asyncio.StreamReader) -> bytes:
        data = await end.read(65_536)
        if self.is_lost:
            await asyncio.Event().wait()
        return data


class Proxy:
    """Forwards bytes; `cuts` decides about the next commits, one each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._links: set[asyncio.Task[None]] = set()
        self._lines: set[Line] = set()
        self._is_out = False
        self.cuts: list[Cut] = []
        self.made = 0

    def lose(self) -> None:
        """Stops forwarding in both directions without closing any connection.

        Connections that exist, or are attempted before `restore`, never work again.
        """
        self._is_out = True
        for line in self._lines:
            line.is_lost = True

    def restore(self) -> None:
        """Forwards the bytes of new connections again."""
        self._is_out = False

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        line = Line(is_lost=self._is_out)
        self._lines.add(line)
        halves: list[asyncio.Task[None]] = []
        writers = [writer]
        try:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self._port)
            writers.append(downstream)
            halves.append(asyncio.create_task(self._up(reader, downstream, line)))
            halves.append(asyncio.create_task(_down(upstream, writer, line)))
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Only `proxied` cancels a link, at the end of the test; the server must not handle
            # that.
            return
        finally:
            self._links.discard(task)
            self._lines.discard(line)
            for half in halves:
                half.cancel()
            # The client does not get bytes that are still buffered.
            for end in writers:
                end.transport.abort()

    async def _up(
        self, reader: asyncio.StreamReader, downstream: asyncio.StreamWriter, line: Line
    ) -> None:
        while data := await line.read(reader):
            if ROWS in data and self.cuts:
                self.made += 1
                if self.cuts.pop(0) is Cut.AFTER:
                    line.is_awaited = True
                    downstream.write(data)
                    await downstream.drain()
                    await line.done.wait()
                return
            downstream.write(data)
            await downstream.drain()


async def _down(upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line) -> None:
    while data := await line.read(upstream):
        if line.is_awaited and DONE in data:
            line.done.set()
            return
        writer.write(data)
        await writer.drain()


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to the server of the libpq `url`, and that URL through the proxy."""
    parts = urlsplit(url)
    assert parts.port is not None
    proxy = Proxy(parts.port)
    server = await asyncio.start_server(proxy.link, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    netloc = parts.netloc.replace(f":{parts.port}", f":{port}")
    try:
        yield proxy, urlunsplit(parts._replace(netloc=netloc))
    finally:
        server.close()
        for task in list(proxy._links):
            task.cancel()
        await asyncio.gather(*proxy._links, return_exceptions=True)
