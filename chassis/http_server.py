"""An HTTP server, which runs uvicorn inside a block, on a socket that is bound before."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from chassis.direct_http import Handlers, Reply
from chassis.http_connection import HttpConnection
from chassis.http_context import Context
from chassis.http_limits import Connections, HttpLimits, Network
from chassis.http_tls import TlsGate, reloaded_tls

log = structlog.get_logger(__name__)

KEEP_ALIVE_S = 75
BACKLOG = 4096
# Uvicorn counts ticks, and renews the date in answers every ten ticks. A day has so many.
TICK_S, TICKS = 0.1, 864_000
# How often the shutdown checks whether all connections have ended.
STEP_S = 0.01


@dataclass(frozen=True, slots=True)
class Address:
    """The address to listen at, with TLS if there is a certificate."""

    host: str
    # 0 means any free port.
    port: int
    cert_file: Path | None = None
    key_file: Path | None = None


def plain_refusal(status: int) -> Reply:
    """A refusal without a body."""
    phrase = HTTPStatus(status).phrase.encode()
    return Reply(status, b"content-type: text/plain; charset=utf-8\r\n", phrase + b"\n")


class _Server(uvicorn.Server):
    """Signals when it has started, and leaves signal handling to the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()
        self._is_leaving = asyncio.Event()

    def leave(self) -> None:
        """Starts the shutdown: accepts no more connections, and closes idle ones."""
        self.should_exit = True
        self._is_leaving.set()

    async def main_loop(self) -> None:
        """Replaces uvicorn's main loop, which polls ten times a second. This one waits for an
        event.
        """
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % TICKS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._is_leaving.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Replaces uvicorn's shutdown, which takes at least a tenth of a second."""
        # If the server is closed after asyncio has accepted a client and before it has made a
        # connection, asyncio drops the client, which then waits in vain.
        for listening in sockets or []:
            asyncio.get_running_loop().remove_reader(listening)
        # asyncio needs two turns: one to accept the client, and one to make the connection.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while state.connections or state.tasks:  # noqa: ASYNC110 - these announce nothing
                    await asyncio.sleep(STEP_S)
        for task in list(state.tasks):
            task.cancel()
        for connection in list(state.connections):
            connection.transport.abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()


@contextlib.asynccontextmanager
async def serving(
    app: Any,
    address: Address,
    *,
    handlers: Handlers,
    drain_s: float,
    grace_s: int,
    leaving: asyncio.Event | None = None,
    limits: HttpLimits | None = None,
    proxies: Sequence[Network] = (),
    refusal: Callable[[int], Reply] = plain_refusal,
) -> AsyncIterator[str]:
    """Serves until the block ends; yields the URL.

    The ASGI application `app` serves requests that `handlers` do not serve; None if they serve all.
    At the end, the server sets `leaving`, continues for `drain_s`, and gives requests under way
    `grace_s` to finish.

    `limits` apply to each client; `proxies` connect for many clients. `refusal` makes the answer to
    bytes that cannot be read as a request. Raises `SystemExit` if the port is taken or the
    certificate cannot be used.
    """
    leaving = leaving or asyncio.Event()
    host = address.host
    shown_host = f"[{host}]" if ":" in host else host
    allowed = limits or HttpLimits(idle_s=KEEP_ALIVE_S)
    connections = Connections(allowed, proxies)
    tls = None
    if address.cert_file is not None:
        try:
            tls = reloaded_tls(address.cert_file, address.key_file)
        except OSError as error:  # ssl.SSLError is a subclass
            raise SystemExit(f"{address.cert_file} cannot be used: {error}") from None

    def connection(*, config: uvicorn.Config, server_state: Any, **_: Any) -> asyncio.Protocol:
        context = Context(config, server_state, handlers, allowed, connections, refusal, leaving)
        return HttpConnection(context) if tls is None else TlsGate(context, tls)

    http: Any = connection
    settings = uvicorn.Config(
        app,
        http=http,
        interface="asgi3",
        ws="none",
        lifespan="off",
        # Uvicorn's log lines go to Mooring's log.
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=grace_s,
    )
    settings.load()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only for sockets whose protocol is TCP. With Nagle's
    # algorithm, an answer whose head and body are written one after the other takes 40 ms longer.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, address.port))
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise SystemExit(
            f"{shown_host}:{address.port} cannot be bound: is the port taken?"
        ) from None
    server = _Server(settings)
    task = asyncio.create_task(server.serve([bound]))
    try:
        await server.has_started.wait()
        scheme = "http" if tls is None else "https"
        url = f"{scheme}://{shown_host}:{bound.getsockname()[1]}"
        log.info("serving", url=url)
        yield url
    finally:
        leaving.set()
        await asyncio.sleep(drain_s)
        server.leave()
        await task
