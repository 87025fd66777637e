"""A reverse proxy that gives each request to the next of several gateways."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from itertools import cycle

END_OF_HEAD = b"\r\n\r\n"
# With one request a connection, each request is given to a gateway by itself.
KEEP, CLOSE = b"\r\nConnection: keep-alive\r\n", b"\r\nConnection: close\r\n"


class Balancer:
    """Counts the requests that each gateway has got, in the order of their addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Each address is a host and a port."""
        self.url = ""
        self.counts = [0] * len(addresses)
        self._addresses = addresses
        self._turns = cycle(range(len(addresses)))
        self._only: int | None = None
        self._links: set[asyncio.Task[None]] = set()

    def only(self, number: int | None) -> None:
        """Gives all requests to one gateway, or again to each in turn."""
        self._only = number

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards one connection of a client."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        writers = [writer]
        try:
            # A browser may open a connection before it has a request.
            head = await reader.readuntil(END_OF_HEAD)
            number = next(self._turns) if self._only is None else self._only
            self.counts[number] += 1
            upstream, downstream = await asyncio.open_connection(
                *self._addresses[number].split(":")
            )
            writers.append(downstream)
            downstream.write(head.replace(KEEP, CLOSE))
            up = asyncio.create_task(_forward(reader, downstream))
            await _forward(upstream, writer)
            up.cancel()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self._links.discard(task)
            for one in writers:
                one.close()

    async def end(self) -> None:
        """Ends all connections."""
        for task in list(self._links):
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@contextlib.asynccontextmanager
async def balancing(addresses: Sequence[str]) -> AsyncIterator[Balancer]:
    """Listens on a free port of loopback."""
    balancer = Balancer(addresses)
    server = await asyncio.start_server(balancer.link, "127.0.0.1", 0)
    balancer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield balancer
    finally:
        server.close()
        await balancer.end()
