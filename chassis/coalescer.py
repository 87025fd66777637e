"""Joins concurrent calls into batches, without making a single call wait.

While a batch is in flight, the calls that arrive form the next one. So a single call is sent at
once, and more load makes larger batches. A call that cannot be done in time is refused at once: if
the queue is full, if it would take longer than the caller's deadline at the present rate, and while
batches hang or fail.
"""

import asyncio
import contextvars
import math
import secrets
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic

import structlog
from prometheus_client import Counter, Gauge, Histogram

from chassis.admission import Drain, RetrySchedule, blind_wait_s
from chassis.errors import DeadlineExceeded, Internal, MooringError, Overloaded, Unavailable
from chassis.log import request_id
from chassis.queue import Call, Item, Queue, Result

log = structlog.get_logger(__name__)

# If batches are in flight for longer, the called service or database is considered to hang.
HUNG_AFTER_S = 4.0
# If a batch with less time than this does not end in time, that does not count as a failure.
PATIENT_S = 1.0
# Calls get `DeadlineExceeded` at most this much late.
EXPIRY_STEP_S = 0.02

# If calls arrive at shorter intervals, it is useful to wait for the next ones.
SPACING_PER_CALL_S = 0.0005

BATCH_ITEMS = Histogram(
    "mooring_batch_items",
    "Items that travelled in one batch",
    ["queue"],
    buckets=[2**n for n in range(12)],
)
BATCH_SECONDS = Histogram("mooring_batch_seconds", "From a batch's start to its end", ["queue"])
QUEUE_ITEMS = Gauge("mooring_queue_items", "Items that wait for a batch", ["queue"])
QUEUE_SECONDS = Histogram(
    "mooring_queue_seconds", "How long the oldest call of a batch had waited for it", ["queue"]
)
SHED = Counter("mooring_shed_total", "Items that were refused, by why", ["queue", "why"])


class _Batch(Generic[Item, Result]):
    __slots__ = ("begun", "calls", "deadline", "weight")

    def __init__(self, calls: list[Call[Item, Result]], begun: float) -> None:
        self.calls = calls
        self.begun = begun
        self.weight = sum(call.weight for call in calls)
        self.deadline = max(call.deadline for call in calls)


class Coalescer(Generic[Item, Result]):
    """Runs `run(items, deadline)` over the items that have arrived since the last batch.

    `run` returns one result or one error per item, in order; an exception fails the whole batch.
    Deadlines are times of the running loop's clock. A batch gets the latest deadline of its calls,
    and each call ends at its own deadline. So a call with a near deadline leaves the others their
    time.
    """

    def __init__(
        self,
        run: Callable[[list[Item], float], Awaitable[Sequence[Result | MooringError]]],
        *,
        name: str,
        max_batch: int,
        max_waiting: int,
        max_waiting_bytes: int = 64 * 1024 * 1024,
        lanes: int = 1,
        spacing_s: float = 0.0,
    ) -> None:
        """`lanes` batches may be in flight at once. `name` names the queue in the metrics.
        `spacing_s`: while calls arrive faster than a batch takes, there is a pause between the
        starts of batches. It grows with the size of the last batch, up to `spacing_s`. Use it for
        fast reads, which would otherwise run in batches of one or two, each at the cost of a batch.
        """
        self._run = run
        self._max_batch = max_batch
        self._lanes = lanes
        self._spacing_s = spacing_s

        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._queue: Queue[Item, Result] = Queue(max_items=max_waiting, max_bytes=max_waiting_bytes)
        # The batches in flight, in the order in which they began.
        self._batches: dict[_Batch[Item, Result], asyncio.Task[None]] = {}
        self._wake: asyncio.Handle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._last_start = 0.0
        # The pause between the starts of the last batch and the next one.
        self._apart_s = 0.0
        self._is_closed = False
        # Whether the batch that ended last failed as a whole.
        self._has_failed = False
        self._drain = Drain()
        self._retry_schedule = RetrySchedule()

        self._batch_items = BATCH_ITEMS.labels(name)
        self._batch_seconds = BATCH_SECONDS.labels(name)
        self._queue_items = QUEUE_ITEMS.labels(name)
        # The value is computed when the metric is read, because the queue may not change for long.
        self._queue_items.set_function(lambda: self._queue.items)
        self._queue_seconds = QUEUE_SECONDS.labels(name)
        self._shed = {why: SHED.labels(name, why) for why in ("full", "late", "hung", "expired")}

    @property
    def waiting(self) -> int:
        """How many items wait for a batch."""
        return self._queue.items

    def offer(
        self,
        item: Item,
        *,
        deadline: float,
        owner: Hashable = None,
        weight: int = 1,
        size: int = 0,
    ) -> Call[Item, Result]:
        """Puts `item` into the next batch.

        `weight` is the number of items inside it, `size` its bytes. Raises `Overloaded`, without
        doing anything, if the queue is full, too long for the deadline, or stuck. After the
        deadline, the result is `DeadlineExceeded`, but the item may still be done.
        """
        if self._is_closed:
            raise Unavailable("the service is stopping")
        now = self._loop.time()
        if why := self._refusal(now, deadline, owner, weight, size):
            self._shed[why].inc(weight)
            raise Overloaded(
                "too many requests are waiting",
                retry_after_s=blind_wait_s()
                if why == "hung"
                else self._retry_schedule.next(self._drain, self._queue.items, weight, now),
            )
        call: Call[Item, Result] = Call(
            self._queue, item, weight, size, owner, deadline, now, self._loop.create_future()
        )
        self._queue.join(call)
        if self._expiry is None or deadline < self._expiry.when():
            self._expire_at(deadline)
        if self._wake is None and len(self._batches) < self._lanes:
            self._wake_up()
        return call

    async def submit(
        self,
        item: Item,
        *,
        deadline: float,
        owner: Hashable = None,
        weight: int = 1,
        size: int = 0,
    ) -> Result:
        """Calls `offer`, and waits for the result. Raises the item's own error too. A cancelled
        call does not affect the other calls of its batch.
        """
        return await self.offer(
            item, deadline=deadline, owner=owner, weight=weight, size=size
        ).result()

    async def close(self) -> None:
        """Refuses new calls, and waits for accepted ones until their deadlines."""
        self._is_closed = True
        while self._queue.items or self._batches:
            self._wake_up()
            if self._batches:
                await asyncio.wait(self._batches.values(), return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)
        if self._expiry is not None:
            self._expiry.cancel()
        self._queue_items.set_function(lambda: 0)

    def _refusal(
        self, now: float, deadline: float, owner: Hashable, weight: int, size: int
    ) -> str | None:
        """Why a call may not join the queue; None if it may."""
        if not self._queue.has_room(owner, weight, size):
            return "full"
        # While batches fail, one call at a time is accepted as a test.
        if self._has_failed and (self._batches or self._queue.items):
            return "hung"
        # The queue is stuck only if no lane makes progress.
        if len(self._batches) == self._lanes and now - self._last_start > HUNG_AFTER_S:
            return "hung"
        if self._queue.items and now + self._drain.time_for(self._queue.items, now) > deadline:
            return "late"
        return None

    def _expire_at(self, deadline: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Ends calls whose deadline has passed, waiting or in flight. All calls share a timer."""
        self._expiry = None
        now = self._loop.time()
        present = list(self._queue)
        present += [call for batch in self._batches for call in batch.calls]
        earliest = float("inf")  # of the deadlines that have not passed
        for call in present:
            if call.future.done():
                continue
            if call.deadline > now:
                earliest = min(earliest, call.deadline)
                continue
            self._shed["expired"].inc(call.weight)
            call.future.set_result(DeadlineExceeded("there was no answer in time"))
            call.leave()
        if earliest < float("inf"):
            # The calls end together, because there are thousands if a service hangs.
            self._expire_at(max(earliest, now + EXPIRY_STEP_S))

    def _wake_up(self) -> None:
        """Starts batches at the end of this turn of the loop, so that calls of one turn join."""
        if self._wake is None and self._queue.items and len(self._batches) < self._lanes:
            start_at = self._last_start + self._apart_s
            if start_at > self._loop.time():
                self._wake = self._loop.call_at(start_at, self._start)
            else:
                self._wake = self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._wake = None
        while self._queue.items and len(self._batches) < self._lanes:
            # Each lane gets an equal share. Otherwise lanes alternate between a large batch and a
            # tiny one, and each batch has a fixed cost.
            crowd = self._queue.items + sum(batch.weight for batch in self._batches)
            calls = self._queue.draw(min(self._max_batch, math.ceil(crowd / self._lanes)))
            now = self._last_start = self._loop.time()
            batch = _Batch(calls, now)
            self._batch_items.observe(batch.weight)
            self._queue_seconds.observe(now - min(call.since for call in calls))
            self._batches[batch] = self._loop.create_task(
                self._run_batch(batch), context=self._context_of(calls)
            )

    def _context_of(self, calls: list[Call[Item, Result]]) -> contextvars.Context:
        """The context of the batch's log lines: its own request id, and the ids of its calls. The
        batch of a single call has the call's id. Without this, a batch would have the id of the
        call that started it.
        """
        context = self._context.copy()
        if len(calls) == 1:
            context.run(request_id.set, calls[0].request_id)
            return context
        batch_id = f"batch-{secrets.token_hex(8)}"
        context.run(request_id.set, batch_id)
        log.debug("batch", batch_id=batch_id, request_ids=[call.request_id for call in calls])
        return context

    async def _run_batch(self, batch: _Batch[Item, Result]) -> None:
        results: Sequence[Result | MooringError]
        calls = batch.calls
        try:
            async with asyncio.timeout_at(batch.deadline):
                results = await self._run([call.item for call in calls], batch.deadline)
            if len(results) != len(calls):
                raise RuntimeError(f"{len(calls)} items got {len(results)} results")
            self._has_failed = False
            if batch.weight * 2 >= self._max_batch:
                # A small batch shows how long a batch takes, but not the rate of the queue.
                self._drain.ended(batch.weight, batch.begun, self._loop.time())
        except MooringError as error:
            results = [error] * len(calls)
            self._note_failure(batch, error)
        except TimeoutError:
            timeout = DeadlineExceeded("there was no answer in time")
            results = [timeout] * len(calls)
            self._note_failure(batch, timeout)
        except Exception:
            log.exception("a batch failed", items=len(calls))
            results = [Internal("internal error")] * len(calls)
        finally:
            # This comes before the calls get their results: if a caller then calls again, this
            # batch must not be in flight any more, because the calls are not concurrent.
            del self._batches[batch]
        self._batch_seconds.observe(self._loop.time() - batch.begun)
        crowd = len(calls) if self._queue.items or len(calls) > 1 else 0
        self._apart_s = min(self._spacing_s, crowd * SPACING_PER_CALL_S)
        for call, result in zip(calls, results, strict=True):
            if not call.future.done():
                call.future.set_result(result)
        self._wake_up()

    def _note_failure(self, batch: _Batch[Item, Result], error: MooringError) -> None:
        """Records whether the batch failed as a whole; one with a short deadline does not count."""
        took_s = self._loop.time() - batch.begun
        self._has_failed = isinstance(error, Unavailable) or (
            isinstance(error, DeadlineExceeded) and took_s >= PATIENT_S
        )
