"""/healthz, /readyz and /metrics on the port of a process, asked from outside of it."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from chassis import probes
from chassis.probes import Probes, Readiness, serve

PATIENCE_S = 10.0


class Process:
    """An event loop in a thread of its own, like that of a process."""

    def __init__(self) -> None:
        self.probes = Probes()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self.port = serve(self.probes, "127.0.0.1", 0) or 0

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begun(), self.loop).result(PATIENCE_S)

    async def _begun(self) -> None:
        self.probes.begin()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE_S)
        self.loop.close()

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}{path}"
        answer = httpx2.request(method, url, timeout=PATIENCE_S)
        is_json = answer.headers["content-type"] == "application/json" and answer.content
        return answer.status_code, answer.json() if is_json else answer.text


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    try:
        yield process
    finally:
        process.stop()


def test_a_process_that_starts_is_alive_and_not_ready(process: Process) -> None:
    assert process.ask("/healthz") == (200, {"status": "ok"})
    starting = {"status": "unavailable", "checks": {"process": "starting"}}
    assert process.ask("/readyz") == (503, starting)
    process.start()
    assert process.ask("/readyz") == (200, {"status": "ready", "checks": {}})
    process.probes.leave()
    stopping = {"status": "unavailable", "checks": {"process": "stopping"}}
    assert process.ask("/readyz") == (503, stopping)
    assert process.ask("/healthz") == (200, {"status": "ok"})


def test_readiness_is_asked_of_dependencies_each_time(process: Process) -> None:
    is_there = False

    async def ready() -> Readiness:
        return is_there, {"database": "serving" if is_there else "not_serving"}

    process.probes.ready_when(ready)
    process.start()
    away = {"status": "unavailable", "checks": {"database": "not_serving"}}
    assert process.ask("/readyz") == (503, away)
    is_there = True
    assert process.ask("/readyz") == (200, {"status": "ready", "checks": {"database": "serving"}})


def test_an_event_loop_that_hangs_is_noticed(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PATIENCE_S", 0.05)
    process.start()
    released = threading.Event()
    process.loop.call_soon_threadsafe(released.wait)
    try:
        hung = {"status": "the event loop does not answer"}
        assert process.ask("/healthz") == (503, hung)
        assert process.ask("/readyz")[0] == 503
        assert process.ask("/metrics")[0] == 200
    finally:
        released.set()
    monkeypatch.setattr(probes, "PATIENCE_S", PATIENCE_S)
    assert process.ask("/healthz")[0] == 200


def test_metrics_are_those_of_the_process(process: Process) -> None:
    status, text = process.ask("/metrics")
    assert status == 200
    assert "process_cpu_seconds_total" in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/healthz/", 404),
        ("POST", "/healthz", 405),
        ("DELETE", "/metrics", 405),
        ("HEAD", "/healthz", 200),
    ],
)
def test_other_paths_and_methods_are_refused(
    process: Process, method: str, path: str, status: int
) -> None:
    assert process.ask(path, method)[0] == status


def test_a_silent_client_does_not_delay_others(process: Process) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(20):
            silent.enter_context(socket.create_connection(("127.0.0.1", process.port)))
        assert process.ask("/healthz") == (200, {"status": "ok"})


def test_a_port_that_is_taken_is_named(process: Process) -> None:
    with pytest.raises(SystemExit, match=f"METRICS_PORT: 127.0.0.1:{process.port} cannot be bound"):
        serve(Probes(), "127.0.0.1", process.port)


def test_without_a_port_nothing_listens() -> None:
    assert serve(Probes(), "127.0.0.1", None) is None
