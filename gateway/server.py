"""The HTTP server: uvicorn inside a block, on a socket that is bound before anything is said."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import structlog
import uvicorn

from gateway.config import GatewayConfig
from gateway.edge import HttpApp
from gateway.express import DeviceProtocol, Routes

log = structlog.get_logger(__name__)

KEEP_ALIVE_S = 75
BACKLOG = 4096


class _Server(uvicorn.Server):
    """Says when it has started, and leaves signals to the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()


@contextlib.asynccontextmanager
async def serving(
    app: HttpApp, routes: Routes, config: GatewayConfig, leaving: asyncio.Event
) -> AsyncIterator[str]:
    """Serves `routes` to devices and `app` to everybody else until the block ends; yields the URL.

    Then it says that it is leaving, by setting `leaving` and by ending connections after their next
    answer, goes on for `drain_s`, and lets requests under way finish. Raises `SystemExit` when the
    port is taken or the certificate cannot be used.
    """
    host = config.gateway_host
    shown_host = f"[{host}]" if ":" in host else host
    settings = uvicorn.Config(
        cast("Any", app),  # Litestar's types of ASGI and uvicorn's do not know each other
        http=cast("Any", functools.partial(DeviceProtocol, routes=routes, leaving=leaving)),
        ws="none",
        lifespan="off",
        # Log lines go where ours go.
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=config.shutdown_grace_s,
        ssl_certfile=config.gateway_tls_cert_file,
        ssl_keyfile=config.gateway_tls_key_file,
    )
    try:
        settings.load()
    except OSError as error:  # ssl.SSLError is one
        raise SystemExit(f"{config.gateway_tls_cert_file} cannot be used: {error}") from None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for sockets that say they are TCP. With it on, an
    # answer whose head and body are written one after the other takes 40 ms longer.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, config.gateway_port))
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise SystemExit(
            f"{shown_host}:{config.gateway_port} cannot be bound: is the port taken?"
        ) from None
    server = _Server(settings)
    task = asyncio.create_task(server.serve([bound]))
    try:
        await server.has_started.wait()
        scheme = "https" if settings.is_ssl else "http"
        url = f"{scheme}://{shown_host}:{bound.getsockname()[1]}"
        log.info("serving", url=url)
        yield url
    finally:
        leaving.set()
        await asyncio.sleep(config.drain_s)
        server.should_exit = True
        await task
