"""Overload: requests are refused at once, and those of disconnected clients are dropped."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gateway.__main__
from chassis.coalescer import Coalescer
from gateway.__main__ import running
from gateway.device_calls import DeviceCalls
from tests.chaos.test_frozen import frozen
from tests.integration.gateway.test_gateway_faults import FakeRegistry, staged
from tests.integration.registry_service.provisioning.test_device_handler import (
    PATIENCE_S,
    Answer,
    Line,
    line_to,
    registration,
    until,
    uuids_in,
)
from tests.stack import Database, Stack

# The longest that an answer may take which waits for no other service.
QUICK_S = 0.5


@dataclass
class Watched:
    """The queue of a gateway's registrations, and connections that occupy its lanes."""

    queues: list[Coalescer[Any, Any]] = field(default_factory=list)

    @property
    def queue(self) -> Coalescer[Any, Any]:
        """The queue of the gateway that was started last."""
        return self.queues[-1]

    @property
    def in_flight(self) -> int:
        return len(self.queue._batches)

    @contextlib.asynccontextmanager
    async def busy(self, url: str, key: str) -> AsyncIterator[list[Line]]:
        """Occupies each lane with one device, `busy-0` and so on; yields their connections."""
        async with lines_to(url, self.queue._lanes) as lines:
            for number, line in enumerate(lines):
                await line.send(registration(key, f"busy-{number}"))
                await until(lambda: self.in_flight > number and not self.queue.waiting)  # noqa: B023
            yield lines


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Records the queue of each gateway that the test starts."""
    watched = Watched()

    class Followed(DeviceCalls):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            watched.queues.append(self._registrations)

    monkeypatch.setattr(gateway.__main__, "DeviceCalls", Followed)
    return watched


def now() -> float:
    return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def lines_to(url: str, count: int) -> AsyncIterator[list[Line]]:
    async with contextlib.AsyncExitStack() as exits:
        yield [await exits.enter_async_context(line_to(url)) for _ in range(count)]


@contextlib.asynccontextmanager
async def locked_keys(database: Database) -> AsyncIterator[None]:
    """During the block registrations wait: another transaction locks the rows of all keys."""
    psycopg = pytest.importorskip("psycopg")
    async with await psycopg.AsyncConnection.connect(database.url("mooring")) as connection:
        await connection.execute("SELECT 1 FROM provisioning_keys FOR UPDATE")
        yield
        await connection.rollback()


@pytest.mark.parametrize("is_abrupt", [False, True])
async def test_a_client_that_disconnects_while_it_waits_is_never_registered(
    stack: Stack, watched: Watched, is_abrupt: bool
) -> None:
    key = stack.provisioning_key
    async with running(stack.gateway_config()) as url, lines_to(url, 2) as (leaving, staying):
        async with contextlib.AsyncExitStack() as exits:
            async with locked_keys(stack.database):
                busy = await exits.enter_async_context(watched.busy(url, key))
                await leaving.send(registration(key, "gone"))
                await staying.send(registration(key, "stays"))
                await until(lambda: watched.queue.waiting == 2)
                if is_abrupt:
                    leaving.break_off()
                else:
                    leaving.writer.close()
                await until(lambda: watched.queue.waiting == 1)
                assert watched.in_flight == len(busy)
            for line in (*busy, staying):
                assert (await line.answer()).status == 201
        assert (await staying.ask(registration(key, "last"))).status == 201
    served = {*(f"busy-{number}" for number in range(len(busy))), "stays", "last"}
    assert uuids_in(stack) == served
    counted = stack.database.execute("SELECT sum(devices_provisioned) FROM provisioning_keys")
    assert counted == [(len(served),)]


async def test_a_client_that_disconnects_cancels_all_that_it_pipelined(
    tmp_path: Path, watched: Watched
) -> None:
    """When a client disconnects, none of its requests that still wait is begun."""
    async with staged(tmp_path) as stage:
        url = str(stage.http.base_url)
        stage.registry.is_open.clear()
        async with watched.busy(url, "key") as busy, lines_to(url, 2) as (leaving, other):
            await leaving.send(registration("key", "gone") + registration("key", "too"))
            await until(lambda: watched.queue.waiting == 1)
            leaving.break_off()
            with contextlib.suppress(TimeoutError):
                await until(lambda: watched.queue.waiting == 0)
            stage.registry.is_open.set()
            for line in busy:
                assert (await line.answer()).status == 201
            assert (await other.ask(registration("key", "last"))).status == 201
        asked = set(itertools.chain(*stage.registry.batches))
        assert not asked & {"gone", "too"}


async def timed(line: Line, asked: bytes) -> tuple[Answer, float]:
    begun = now()
    answer = await line.ask(asked)
    return answer, now() - begun


async def test_while_the_database_hangs_registrations_are_refused_at_once(
    stack: Stack, watched: Watched
) -> None:
    key = stack.provisioning_key
    async with running(stack.gateway_config()) as url, lines_to(url, 62) as lines:
        health, probe, *early = lines
        assert (await probe.ask(registration(key, "before"))).status == 201

        async def is_alive() -> None:
            answer, took_s = await timed(health, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (answer.status, took_s < QUICK_S) == (200, True)

        with frozen(stack):
            begun = now()
            for number, line in enumerate(early):
                await line.send(registration(key, f"early-{number}"))
            while True:
                # Each try uses a new connection, because the earlier ones may still wait.
                async with line_to(url) as late:
                    await late.send(registration(key, "late"))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(QUICK_S):
                            refused = await late.answer()
                            break
                assert now() - begun < 8
                await is_alive()
            assert refused.status == 503
            for number in range(50):
                refused, took_s = await timed(probe, registration(key, f"late-{number}"))
                assert (refused.status, took_s < QUICK_S) == (503, True), refused
                assert int(refused.header("retry-after") or 0) >= 1
                assert watched.queue.waiting <= len(early)
                await is_alive()
        thawed = now()
        while (again := await probe.ask(registration(key, "after"))).status == 503:
            assert now() - thawed < PATIENCE_S
            await asyncio.sleep(0.05)
        assert again.status == 201
        # The devices that came before the gateway noticed are registered, or were answered 503.
        statuses = Counter([(await line.answer()).status for line in early])
        assert statuses.keys() <= {200, 201, 503}
        assert watched.queue.waiting == 0
    assert {"before", "after"} <= uuids_in(stack)


BEAT_S = 0.15


@contextlib.asynccontextmanager
async def steady(registry: FakeRegistry) -> AsyncIterator[None]:
    """The registry answers the calls that it has received every `BEAT_S` seconds."""

    async def answer() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            registry.is_open.set()
            registry.is_open.clear()

    task = asyncio.create_task(answer())
    try:
        yield
    finally:
        task.cancel()


async def test_refused_clients_come_back_when_there_is_room_at_different_times(
    tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, room = 16, 256
    monkeypatch.setattr("gateway.device_calls.MAX_BATCH", batch)
    # One key may fill half of the queue.
    monkeypatch.setattr("gateway.device_calls.MAX_WAITING", 2 * room)
    async with staged(tmp_path) as stage:
        url = str(stage.http.base_url)
        async with lines_to(url, room + 2) as (refused, other, *crowd):
            told: list[int] = []
            drained_s = 0.0
            # In the first round the gateway learns how fast its queue drains; the second uses that.
            for round_ in ("before", "after"):
                stage.registry.is_open.clear()
                async with watched.busy(url, "key") as busy:
                    for number, line in enumerate(crowd):
                        await line.send(registration("key", f"{round_}-{number}"))
                    await until(lambda: watched.queue.waiting == room)
                    for number in range(100):
                        answer = await refused.ask(registration("key", f"refused-{number}"))
                        assert (answer.status, answer.reason) == (503, "OVERLOADED")
                        if round_ == "after":
                            told.append(int(answer.header("retry-after") or 0))
                    # Another key has room, because one key cannot fill the whole queue.
                    await other.send(registration("another", "other"))
                    await until(lambda: watched.queue.waiting == room + 1)
                    begun = now()
                    async with steady(stage.registry):
                        for line in (*busy, *crowd, other):
                            assert (await line.answer()).status == 201
                    drained_s = now() - begun
    assert len(set(told)) > 1
    # Retry-After is in whole seconds.
    assert min(told) + 1 > drained_s
    assert max(told) < 10 * drained_s


async def test_a_burst_after_a_quiet_time_is_not_refused() -> None:
    """Batches are small in a quiet time because few calls come, not because calls are slow."""

    async def run(items: list[int], deadline: float) -> list[int]:
        await asyncio.sleep(0.02)
        return items

    coalescer: Coalescer[int, int] = Coalescer(run, name="test", max_batch=256, max_waiting=4096)
    for number in range(20):
        await coalescer.submit(number, deadline=now() + 10)
    begun = now()
    answers = await asyncio.gather(
        *(coalescer.submit(number, deadline=begun + 10) for number in range(2_000)),
        return_exceptions=True,
    )
    assert now() - begun < 5
    assert answers == list(range(2_000))


async def test_other_callers_are_served_during_a_burst(stack: Stack) -> None:
    connections, devices_of_each = 200, 12
    key = stack.provisioning_key
    took: list[float] = []
    async with lines_to(stack.gateway_url, connections) as lines:

        async def register(name: int, line: Line) -> None:
            for number in range(devices_of_each):
                answer = await line.ask(registration(key, f"d-{name}-{number}"))
                assert answer.status == 201, answer

        async def watch(path: str, **headers: str) -> None:
            while not burst.done():
                begun = now()
                answer = await stack.http.get(path, headers=headers)
                took.append(now() - begun)
                assert answer.status_code == 200, answer.text

        burst = asyncio.gather(*(register(name, line) for name, line in enumerate(lines)))
        token = {"Authorization": f"Bearer {stack.admin_token}"}
        async with asyncio.timeout(60):
            await asyncio.gather(
                burst, watch("/readyz"), watch("/healthz"), watch("/api/v1/devices", **token)
            )
    assert len(took) >= 6
    assert max(took) < 2
    [(registered, distinct)] = stack.database.execute(
        "SELECT count(*), count(DISTINCT uuid) FROM devices"
    )
    assert registered == distinct == connections * devices_of_each
    counted = stack.database.execute("SELECT sum(devices_provisioned) FROM provisioning_keys")
    assert counted == [(registered,)]
