"""Serves /healthz, /readyz and /metrics of a process, on a separate port.

They need neither TLS nor gRPC, so that an orchestrator and Prometheus can use them. A separate
thread answers, and calls the process's event loop. So an event loop that hangs is noticed.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any, TypeAlias, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

# If the event loop does not answer within this time, it is considered to hang.
PATIENCE_S = 5.0
# A client that sends nothing for this long is disconnected.
CLIENT_S = 10.0
METHODS = ("GET", "HEAD")
STARTING, STOPPING, HUNG = "starting", "stopping", "the event loop does not answer"

# Whether the process can do its work; and the state of each dependency, by name: "serving" or the
# problem.
Readiness: TypeAlias = tuple[bool, Mapping[str, str]]
Answer = TypeVar("Answer")
# A function that is called in the event loop.
Ask: TypeAlias = Callable[[], Coroutine[Any, Any, Answer]]


class Probes:
    """The state of a process. The event loop writes it; threads of the server read it."""

    def __init__(self) -> None:
        """At first the process is alive and not ready."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stage = STARTING
        self._ask: Ask[Readiness] = _ready

    def ready_when(self, ask: Ask[Readiness]) -> None:
        """Sets the function that tells whether the process is ready. `ask` is called in the event
        loop for each probe, and must return at once.
        """
        self._ask = ask

    def begin(self) -> None:
        """Records that the process has started. Call it in the event loop."""
        self._loop, self._stage = asyncio.get_running_loop(), ""

    def leave(self) -> None:
        """Records that the process stops, so it is no longer ready."""
        self._stage = STOPPING

    async def now(self) -> Readiness:
        """Whether the process can do its work. Called in the event loop."""
        if self._stage:
            return False, {"process": self._stage}
        return await self._ask()

    def is_alive(self) -> bool:
        """Whether the event loop answers. Call it from another thread."""
        return self._loop is None or self._in_loop(self._loop, _alive, default=False)

    def readiness(self) -> Readiness:
        """Whether the process is ready. Call it from another thread."""
        if self._loop is None or self._stage:
            return False, {"process": self._stage}
        hung: Readiness = False, {"process": HUNG}
        return self._in_loop(self._loop, self._ask, default=hung)

    def _in_loop(
        self,
        loop: asyncio.AbstractEventLoop,
        ask: Ask[Answer],
        default: Answer,
    ) -> Answer:
        asking = asyncio.run_coroutine_threadsafe(ask(), loop)
        try:
            return asking.result(PATIENCE_S)
        except (TimeoutError, CancelledError, RuntimeError):
            asking.cancel()
            return default


async def _ready() -> Readiness:
    return True, {}


async def _alive() -> bool:
    return True


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_S

    def log_message(self, *_: Any, **__: Any) -> None:
        """Requests are not logged."""


def serve(probes: Probes, host: str, port: int | None) -> int | None:
    """Serves until the process ends; returns the port, and does nothing if `port` is None.

    Raises `SystemExit` if it cannot listen.
    """
    if port is None:
        return None
    try:
        server = make_server(host, port, _app(probes), _Server, _Handler)
    except OSError as error:
        raise SystemExit(f"METRICS_PORT: {host}:{port} cannot be bound: {error}") from None
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return int(server.server_port)


def _app(probes: Probes) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    metrics = make_wsgi_app()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        status, body = HTTPStatus.NOT_FOUND, dict[str, Any]()
        if path in ("/healthz", "/readyz", "/metrics") and method not in METHODS:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        elif path == "/metrics":
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        elif path == "/healthz":
            is_alive = probes.is_alive()
            status = HTTPStatus.OK if is_alive else HTTPStatus.SERVICE_UNAVAILABLE
            body = {"status": "ok" if is_alive else HUNG}
        elif path == "/readyz":
            is_ready, checks = probes.readiness()
            status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
            body = {"status": "ready" if is_ready else "unavailable", "checks": dict(checks)}
        text = json.dumps(body).encode() if body else b""
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
        headers.append(("Cache-Control", "no-store"))
        start_response(f"{status.value} {status.phrase}", headers)
        return [b"" if method == "HEAD" else text]

    return app
