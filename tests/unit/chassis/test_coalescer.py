"""Batches: which calls share one, which wait, which are refused, and that none affects others."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from chassis.coalescer import Coalescer
from chassis.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    MooringError,
    Overloaded,
    Unavailable,
)
from chassis.log import request_id


class Desk:
    """Answers each item with itself; records its batches; can be paused."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.begun = asyncio.Event()
        self.failure: Exception | None = None

    async def run(self, items: list[object], deadline: float) -> Sequence[object | MooringError]:
        self.batches.append(items)
        self.begun.set()
        await self.is_open.wait()
        if self.failure:
            raise self.failure
        return [item if item != "bad" else InvalidInput("bad") for item in items]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def soon(seconds: float = 10) -> float:
    return asyncio.get_running_loop().time() + seconds


def desk_of(desk: Desk, **options: float) -> Coalescer[Any, Any]:
    settings = {"max_batch": 100, "max_waiting": 100} | options
    return Coalescer(desk.run, name="test", **settings)  # type: ignore[arg-type]


async def held(desk: Desk, coalescer: Coalescer[Any, Any]) -> "asyncio.Task[Any]":
    """Starts a call that stays in flight, so that later calls wait."""
    desk.is_open.clear()
    desk.begun.clear()
    task = asyncio.create_task(coalescer.submit("first", deadline=soon()))
    await desk.begun.wait()
    return task


async def all_waiting(coalescer: Coalescer[Any, Any], count: int) -> None:
    async with asyncio.timeout(5):
        while coalescer.waiting < count:
            await asyncio.sleep(0)


async def test_a_single_call_starts_at_once(desk: Desk) -> None:
    coalescer = desk_of(desk, spacing_s=60)
    assert await coalescer.submit("a", deadline=soon()) == "a"
    assert await coalescer.submit("b", deadline=soon()) == "b"
    assert desk.batches == [["a"], ["b"]]


async def test_calls_that_arrive_during_a_batch_form_the_next_batch(desk: Desk) -> None:
    coalescer = desk_of(desk)
    first = await held(desk, coalescer)
    others = [asyncio.create_task(coalescer.submit(n, deadline=soon())) for n in range(50)]
    await all_waiting(coalescer, 50)
    desk.is_open.set()
    assert list(await asyncio.gather(first, *others)) == ["first", *range(50)]
    assert desk.batches == [["first"], list(range(50))]


async def test_batches_are_no_larger_than_allowed(desk: Desk) -> None:
    coalescer = desk_of(desk, max_batch=10)
    first = await held(desk, coalescer)
    calls = [asyncio.create_task(coalescer.submit(n, weight=4, deadline=soon())) for n in range(5)]
    await all_waiting(coalescer, 20)
    desk.is_open.set()
    await asyncio.gather(first, *calls)
    assert desk.batches == [["first"], [0, 1], [2, 3], [4]]


async def test_a_call_larger_than_a_batch_has_its_own_batch(desk: Desk) -> None:
    coalescer = desk_of(desk, max_batch=10)
    assert await coalescer.submit("large", weight=50, deadline=soon()) == "large"


async def test_as_many_batches_as_lanes_are_in_flight(desk: Desk) -> None:
    coalescer = desk_of(desk, lanes=2)
    first = await held(desk, coalescer)
    second = await held(desk, coalescer)
    third = asyncio.create_task(coalescer.submit("third", deadline=soon()))
    await all_waiting(coalescer, 1)
    assert desk.batches == [["first"], ["first"]]
    desk.is_open.set()
    await asyncio.gather(first, second, third)


async def test_one_bad_item_fails_alone(desk: Desk) -> None:
    coalescer = desk_of(desk)
    first = await held(desk, coalescer)
    calls = [
        asyncio.create_task(coalescer.submit(item, deadline=soon())) for item in ("a", "bad", "b")
    ]
    await all_waiting(coalescer, 3)
    desk.is_open.set()
    await first
    a, bad, b = await asyncio.gather(*calls, return_exceptions=True)
    assert (a, b) == ("a", "b")
    assert isinstance(bad, InvalidInput)


async def test_a_failed_batch_fails_its_callers_and_not_later_ones(desk: Desk) -> None:
    coalescer = desk_of(desk)
    desk.failure = Unavailable("down")
    with pytest.raises(Unavailable, match="down"):
        await coalescer.submit("a", deadline=soon())
    desk.failure = ZeroDivisionError("a secret")
    with pytest.raises(Internal, match="internal error"):
        await coalescer.submit("b", deadline=soon())
    desk.failure = None
    assert await coalescer.submit("c", deadline=soon()) == "c"


async def test_a_wrong_number_of_results_fails_all_callers() -> None:
    async def forgetful(items: list[object], deadline: float) -> list[object]:
        return []

    coalescer: Coalescer[Any, Any] = Coalescer(forgetful, name="test", max_batch=10, max_waiting=10)
    with pytest.raises(Internal):
        await coalescer.submit("a", deadline=soon())


async def test_a_call_beyond_the_limit_is_refused_and_not_begun(desk: Desk) -> None:
    coalescer = desk_of(desk, max_waiting=10, max_waiting_bytes=1_000)
    first = await held(desk, coalescer)
    waiting = asyncio.create_task(coalescer.submit("w", weight=8, size=900, deadline=soon()))
    await all_waiting(coalescer, 8)
    with pytest.raises(Overloaded) as refused:
        await coalescer.submit("too many", weight=3, deadline=soon())
    assert refused.value.retry_after_s > 0
    with pytest.raises(Overloaded):
        await coalescer.submit("too large", size=101, deadline=soon())
    fits = asyncio.create_task(coalescer.submit("fits", weight=2, size=100, deadline=soon()))
    await all_waiting(coalescer, 10)
    desk.is_open.set()
    assert list(await asyncio.gather(first, waiting, fits)) == ["first", "w", "fits"]


async def test_one_owner_can_neither_fill_the_queue_nor_jump_it(desk: Desk) -> None:
    coalescer = desk_of(desk, max_batch=2, max_waiting=10)
    first = await held(desk, coalescer)
    greedy = [
        asyncio.create_task(coalescer.submit(f"g{n}", owner="greedy", deadline=soon()))
        for n in range(5)
    ]
    await all_waiting(coalescer, 5)
    with pytest.raises(Overloaded):
        await coalescer.submit("g5", owner="greedy", deadline=soon())
    modest = asyncio.create_task(coalescer.submit("m", owner="modest", deadline=soon()))
    await all_waiting(coalescer, 6)
    desk.is_open.set()
    await asyncio.gather(first, modest, *greedy)
    assert desk.batches[1] == ["g0", "m"]


async def test_a_cancelled_call_frees_its_place(desk: Desk) -> None:
    coalescer = desk_of(desk, max_waiting=2)
    first = await held(desk, coalescer)
    leaver = asyncio.create_task(coalescer.submit("leaver", weight=2, deadline=soon()))
    await all_waiting(coalescer, 2)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert coalescer.waiting == 0
    stayer = asyncio.create_task(coalescer.submit("stayer", weight=2, deadline=soon()))
    await all_waiting(coalescer, 2)
    desk.is_open.set()
    assert list(await asyncio.gather(first, stayer)) == ["first", "stayer"]
    assert desk.batches == [["first"], ["stayer"]]


async def test_a_call_cancelled_in_flight_does_not_affect_others(desk: Desk) -> None:
    coalescer = desk_of(desk)
    first = await held(desk, coalescer)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    desk.is_open.set()
    assert await coalescer.submit("next", deadline=soon()) == "next"


async def test_a_call_past_its_deadline_fails(desk: Desk) -> None:
    coalescer = desk_of(desk)
    first = await held(desk, coalescer)
    with pytest.raises(DeadlineExceeded):
        await coalescer.submit("late", deadline=soon(0.01))
    assert coalescer.waiting == 0
    desk.is_open.set()
    await first


async def test_closing_finishes_accepted_calls_and_refuses_new_ones(desk: Desk) -> None:
    coalescer = desk_of(desk)
    first = await held(desk, coalescer)
    second = asyncio.create_task(coalescer.submit("second", deadline=soon()))
    await all_waiting(coalescer, 1)
    closing = asyncio.create_task(coalescer.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await coalescer.submit("third", deadline=soon())
    desk.is_open.set()
    await closing
    assert list(await asyncio.gather(first, second)) == ["first", "second"]


@pytest.mark.parametrize(("crowd", "apart_s"), [(1, 0.0), (10, 0.005), (90, 0.02)])
async def test_the_more_calls_wait_the_further_apart_batches_start(
    desk: Desk, crowd: int, apart_s: float
) -> None:
    coalescer = desk_of(desk, spacing_s=0.02)
    first = await held(desk, coalescer)
    crowded = [asyncio.create_task(coalescer.submit(n, deadline=soon())) for n in range(crowd)]
    await all_waiting(coalescer, crowd)
    desk.is_open.set()
    await asyncio.gather(first, *crowded)
    # From start to start: on a busy machine the batch itself may take longer than that.
    crowd_began = coalescer._last_start
    assert await coalescer.submit("next", deadline=soon()) == "next"
    assert apart_s * 0.9 <= coalescer._last_start - crowd_began < apart_s + 1


async def test_a_batch_has_its_own_request_id_and_a_single_call_keeps_its_own(
    desk: Desk,
) -> None:
    seen: list[str] = []

    async def note(items: list[object], deadline: float) -> list[object]:
        seen.append(request_id.get())
        return list(await desk.run(items, deadline))

    coalescer: Coalescer[Any, Any] = Coalescer(note, name="test", max_batch=10, max_waiting=100)

    async def call(name: str) -> None:
        request_id.set(name)
        await coalescer.submit(name, deadline=soon())

    desk.is_open.clear()
    first = asyncio.create_task(call("first"))
    await desk.begun.wait()
    others = [asyncio.create_task(call(f"other-{n}")) for n in range(3)]
    await all_waiting(coalescer, 3)
    desk.is_open.set()
    await asyncio.gather(first, *others)
    await asyncio.create_task(call("last"))
    assert seen[0] == "first"
    assert seen[1].startswith("batch-")
    assert seen[2] == "last"


async def test_a_batch_ends_with_the_last_of_its_callers(desk: Desk) -> None:
    coalescer = desk_of(desk)
    desk.is_open.clear()
    with pytest.raises(DeadlineExceeded):
        await coalescer.submit("a", deadline=soon(0.05))
    desk.is_open.set()
    assert await coalescer.submit("b", deadline=soon()) == "b"


async def test_a_call_with_a_deadline_shorter_than_the_queue_is_refused() -> None:
    loop = asyncio.get_running_loop()

    async def slow(items: list[object], deadline: float) -> list[object]:
        # The rate is a hundred per second.
        await asyncio.sleep(0.01)
        return items

    coalescer: Coalescer[Any, Any] = Coalescer(slow, name="test", max_batch=1, max_waiting=1_000)
    for n in range(30):
        await coalescer.submit(n, deadline=soon())
    waiting = [asyncio.create_task(coalescer.submit(n, deadline=soon(60))) for n in range(100)]
    await all_waiting(coalescer, 50)
    with pytest.raises(Overloaded) as refused:
        await coalescer.submit("in a hurry", deadline=soon(0.1))
    # The answer says when the queue will have drained.
    assert 0.3 < refused.value.retry_after_s < 3
    begun = loop.time()
    assert await coalescer.submit("patient", deadline=soon(60)) == "patient"
    assert loop.time() - begun < 10
    await asyncio.gather(*waiting)


async def test_while_batches_fail_one_call_probes_and_the_others_are_refused(
    desk: Desk,
) -> None:
    coalescer = desk_of(desk, lanes=2)
    desk.failure = Unavailable("down")
    with pytest.raises(Unavailable):
        await coalescer.submit("a", deadline=soon())
    scout = await held(desk, coalescer)
    for n in range(20):
        with pytest.raises(Overloaded):
            await coalescer.submit(n, deadline=soon())
    assert desk.batches == [["a"], ["first"]]
    desk.failure = None
    desk.is_open.set()
    assert await scout == "first"
    assert await coalescer.submit("b", deadline=soon()) == "b"


async def test_while_a_batch_hangs_new_calls_are_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.coalescer.HUNG_AFTER_S", 0.05)
    coalescer = desk_of(desk)
    first = await held(desk, coalescer)
    early = asyncio.create_task(coalescer.submit("early", deadline=soon()))
    refused = None
    async with asyncio.timeout(5):
        while refused is None:
            try:
                coalescer.offer("probe", deadline=soon()).abandon()
                await asyncio.sleep(0.005)
            except Overloaded as overloaded:
                refused = overloaded
    desk.is_open.set()
    assert await first == "first"
    assert await early == "early"
    assert await coalescer.submit("after", deadline=soon()) == "after"


async def test_an_abandoned_call_never_begins(desk: Desk) -> None:
    coalescer = desk_of(desk)
    first = await held(desk, coalescer)
    gone = coalescer.offer("gone", deadline=soon())
    stays = coalescer.offer("stays", deadline=soon())
    gone.abandon()
    assert coalescer.waiting == 1
    desk.is_open.set()
    await first
    assert await stays.future == "stays"
    assert desk.batches == [["first"], ["stays"]]
    assert gone.future.cancelled()


async def test_many_deadlines_each_end_on_time(desk: Desk) -> None:
    coalescer = desk_of(desk)
    first = await held(desk, coalescer)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    ended: dict[float, float] = {}

    async def caller(patience_s: float) -> None:
        with pytest.raises(DeadlineExceeded):
            await coalescer.submit(patience_s, deadline=begun + patience_s)
        ended[patience_s] = loop.time() - begun

    # The nearest deadline comes last.
    await asyncio.gather(*(caller(patience_s) for patience_s in (0.3, 0.2, 0.1, 0.05)))
    assert all(patience_s <= took_s < patience_s + 0.5 for patience_s, took_s in ended.items())
    assert list(ended) == [0.05, 0.1, 0.2, 0.3]
    desk.is_open.set()
    await first


async def test_one_hanging_lane_does_not_stop_the_queue(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.coalescer.HUNG_AFTER_S", 0.01)
    stuck = asyncio.Event()

    async def run(items: list[object], deadline: float) -> list[object]:
        if "stuck" in items:
            await stuck.wait()
        return items

    coalescer: Coalescer[Any, Any] = Coalescer(
        run, name="test", max_batch=10, max_waiting=100, lanes=2
    )
    hanging = asyncio.create_task(coalescer.submit("stuck", deadline=soon()))
    loop = asyncio.get_running_loop()
    since = loop.time()
    while loop.time() < since + 0.05:
        assert await coalescer.submit("other", deadline=soon()) == "other"
    stuck.set()
    assert await hanging == "stuck"


async def test_a_call_with_a_short_deadline_does_not_affect_others(desk: Desk) -> None:
    coalescer = desk_of(desk)
    desk.is_open.clear()
    with pytest.raises(DeadlineExceeded):
        await coalescer.submit("hurried", deadline=soon(0.01))
    desk.is_open.set()
    calls = [coalescer.submit(n, deadline=soon()) for n in range(20)]
    assert await asyncio.gather(*calls) == list(range(20))


async def test_a_rate_measured_without_load_does_not_refuse_a_burst() -> None:
    async def steady(items: list[object], deadline: float) -> list[object]:
        await asyncio.sleep(0.005)
        return items

    coalescer: Coalescer[Any, Any] = Coalescer(
        steady, name="test", max_batch=250, max_waiting=4_000, lanes=2
    )
    for n in range(50):
        await coalescer.submit(n, deadline=soon())
    storm = [coalescer.submit(n, deadline=soon()) for n in range(4_000)]
    assert await asyncio.gather(*storm) == list(range(4_000))
