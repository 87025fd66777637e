"""Loops of a worker run independently, and are restarted after a failure."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from chassis import loops
from chassis.errors import Unavailable
from chassis.loops import Loop, Turn, UnknownLoop, chosen
from chassis.process import background

PATIENCE_S = 10.0


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(loops, "LONGEST_PAUSE_S", 0.01)


def value(name: str, loop: str) -> float:
    return REGISTRY.get_sample_value(name, {"loop": loop}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


class Work:
    """A loop that counts its turns, and fails on request."""

    def __init__(self, name: str, *faults: Exception) -> None:
        self.loop = Loop(name, self.open)
        self.opened = self.closed = self.turns = 0
        self.faults = list(faults)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Turn]:
        self.opened += 1
        try:
            yield self.turn
        finally:
            self.closed += 1

    async def turn(self) -> float:
        if self.faults:
            raise self.faults.pop()
        self.turns += 1
        return 0.001


async def test_a_fault_restarts_the_loop_and_affects_no_other() -> None:
    failing, other = Work("failing", *[ValueError("a fault")] * 5), Work("other")
    async with background(loops.run([failing.loop, other.loop])):
        await until(lambda: failing.turns > 1 and other.turns > 1)
    assert (failing.opened, failing.closed) == (6, 6)
    assert (other.opened, other.closed) == (1, 1)
    assert value("mooring_loop_failures_total", "failing") == 5
    assert value("mooring_loop_failures_total", "other") == 0


async def test_a_loop_with_a_temporary_failure_keeps_its_resources() -> None:
    work = Work("waiting", *[Unavailable("the database is away")] * 3)
    async with background(loops.run([work.loop])):
        await until(lambda: work.turns > 1)
    assert (work.opened, work.closed) == (1, 1)
    assert value("mooring_loop_failures_total", "waiting") == 3


async def test_a_loop_is_restarted_when_its_background_task_fails() -> None:
    work, faults = Work("listening"), [ValueError("a fault")] * 3

    async def listener() -> None:
        if faults:
            raise faults.pop()
        await asyncio.Event().wait()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Turn]:
        async with work.open() as turn, background(listener()):
            yield turn

    async with background(loops.run([Loop("listening", opened)])):
        await until(lambda: work.opened == 4 and work.turns > 1)
        turns = work.turns
        await until(lambda: work.turns > turns)
    assert (work.opened, work.closed) == (4, 4)


async def test_a_hanging_loop_delays_no_other() -> None:
    other = Work("beside")

    @asynccontextmanager
    async def hanging() -> AsyncIterator[Turn]:
        await asyncio.Event().wait()
        yield other.turn

    async with background(loops.run([Loop("hanging", hanging), other.loop])):
        await until(lambda: other.turns > 3)
    assert value("mooring_loop_succeeded_timestamp_seconds", "hanging") == 0
    assert value("mooring_loop_succeeded_timestamp_seconds", "beside") > 1e9


async def test_pauses_grow_until_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    ours = asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await ours(0)

    work = Work("pausing", *[Unavailable("away")] * 6)
    monkeypatch.setattr(asyncio, "sleep", noted)
    running = asyncio.create_task(loops.run([work.loop]))
    async with asyncio.timeout(PATIENCE_S):
        while work.turns < 2:
            await ours(0)
        work.faults.append(Unavailable("away again"))
        turns = work.turns
        while work.turns < turns + 2:
            await ours(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert waited[:6] == [0.001, 0.002, 0.004, 0.008, 0.01, 0.01]
    # After a success the pause is the shortest one again, which is also that between turns.
    assert set(waited[6:]) == {0.001}


def test_only_existing_loops_can_be_chosen() -> None:
    all_of_them = [Work(name).loop for name in ("a", "b", "c")]
    assert chosen(all_of_them, ()) == all_of_them
    assert [loop.name for loop in chosen(all_of_them, ["c", "a"])] == ["a", "c"]
    with pytest.raises(UnknownLoop, match="no loop is called x; there are a, b, c"):
        chosen(all_of_them, ["a", "x"])
