"""Turns concurrent calls into batches, without making a quiet one wait.

While a batch is in flight, the calls that arrive form the next one. So an idle call leaves at
once, and the busier it gets, the larger the batches: load makes batches, quiet costs nothing.
"""

import asyncio
import contextvars
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog
from structlog.contextvars import bind_contextvars, get_contextvars

from chassis.errors import DeadlineExceeded, Internal, MooringError, Overloaded, Unavailable

log = structlog.get_logger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Call(Generic[Item, Result]):
    item: Item
    weight: int
    size: int
    owner: Hashable
    deadline: float
    future: "asyncio.Future[Result | MooringError]"
    request_id: str
    is_waiting: bool = field(default=True)


class Coalescer(Generic[Item, Result]):
    """Runs `run(items, deadline)` over whatever has gathered since it was last free to.

    `run` answers one result or one error per item, in order; an exception fails the whole batch.
    Deadlines are times of the running loop's clock; a batch gets the latest of its calls', so one
    that is almost out of time does not cut its neighbours short, and ends with it.

    Owners take turns: a batch is drawn one call from each in rotation, and one owner may fill at
    most half of the queue, so one greedy provisioning key cannot starve the others.
    """

    def __init__(
        self,
        run: Callable[[list[Item], float], Awaitable[Sequence[Result | MooringError]]],
        *,
        max_batch: int,
        max_waiting: int,
        max_waiting_bytes: int = 64 * 1024 * 1024,
        lanes: int = 1,
        spacing_s: float = 0.0,
    ) -> None:
        """`lanes` batches may be in flight at once.

        `spacing_s`: while calls arrive faster than a batch takes, batches start at least this far
        apart. For cheap reads, which would otherwise run in batches of one.
        """
        self._run = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._lanes = lanes
        self._spacing_s = spacing_s

        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._queues: OrderedDict[Hashable, OrderedDict[_Call[Item, Result], None]] = OrderedDict()
        self._waiting_of: dict[Hashable, int] = {}
        self._waiting = 0
        self._waiting_bytes = 0
        self._batches: set[asyncio.Task[None]] = set()
        self._wake: asyncio.Handle | None = None
        self._last_start = 0.0
        self._is_busy = False
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many items wait for a batch."""
        return self._waiting

    async def submit(
        self,
        item: Item,
        *,
        deadline: float,
        owner: Hashable = None,
        weight: int = 1,
        size: int = 0,
    ) -> Result:
        """The result of `item`, in whichever batch it travels.

        `weight` counts the items inside it, `size` its bytes. Raises `Overloaded` when the queue
        is full, `DeadlineExceeded` when the time is up (the item may still be done), and whatever
        error is the item's own. A cancelled caller leaves without harm to its neighbours.
        """
        if self._is_closed:
            raise Unavailable("the service is stopping")
        waiting = self._waiting_of.get(owner, 0)
        if (
            self._waiting + weight > self._max_waiting
            or (owner is not None and waiting + weight > self._max_waiting // 2)
            or self._waiting_bytes + size > self._max_waiting_bytes
        ):
            raise Overloaded("too many requests are waiting")
        request_id = str(get_contextvars().get("request_id", ""))
        call = _Call[Item, Result](
            item, weight, size, owner, deadline, self._loop.create_future(), request_id
        )
        self._queues.setdefault(owner, OrderedDict())[call] = None
        self._waiting_of[owner] = waiting + weight
        self._waiting += weight
        self._waiting_bytes += size
        self._wake_up()
        try:
            async with asyncio.timeout_at(deadline):
                result = await call.future
        except TimeoutError:
            raise DeadlineExceeded("there was no answer in time") from None
        finally:
            if call.is_waiting:
                self._leave(call)
        if isinstance(result, MooringError):
            raise result
        return result

    async def close(self) -> None:
        """Takes no more calls, and waits for those it has taken; each has its own deadline."""
        self._is_closed = True
        while self._waiting or self._batches:
            self._wake_up()
            if self._batches:
                await asyncio.wait(self._batches, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)

    def _leave(self, call: _Call[Item, Result]) -> None:
        """Takes a call out of the queue, drawn or given up."""
        call.is_waiting = False
        self._waiting -= call.weight
        self._waiting_bytes -= call.size
        queue = self._queues[call.owner]
        del queue[call]
        if queue:
            self._waiting_of[call.owner] -= call.weight
        else:
            del self._queues[call.owner]
            del self._waiting_of[call.owner]

    def _wake_up(self) -> None:
        """Starts batches at the end of this turn of the loop, so that calls of one turn join."""
        if self._wake is None and self._waiting and len(self._batches) < self._lanes:
            start_at = self._last_start + self._spacing_s
            if self._is_busy and start_at > self._loop.time():
                self._wake = self._loop.call_at(start_at, self._start)
            else:
                self._wake = self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._wake = None
        while self._waiting and len(self._batches) < self._lanes:
            batch = self._draw()
            self._last_start = self._loop.time()
            task = self._loop.create_task(self._run_batch(batch), context=self._context_of(batch))
            self._batches.add(task)
            task.add_done_callback(self._finished)

    def _context_of(self, batch: list[_Call[Item, Result]]) -> contextvars.Context:
        """What the batch's log lines say of it: its own request id, and whose it stands for.

        A call that travels alone keeps its id; without this every batch would carry the id of
        whichever call happened to wake the loop.
        """
        context = self._context.copy()
        if len(batch) == 1:
            context.run(bind_contextvars, request_id=batch[0].request_id)
            return context
        batch_id = f"batch-{secrets.token_hex(8)}"
        context.run(bind_contextvars, request_id=batch_id)
        log.debug("batch", batch_id=batch_id, request_ids=[call.request_id for call in batch])
        return context

    def _draw(self) -> list[_Call[Item, Result]]:
        """The next batch: one call of each owner in turn."""
        batch: list[_Call[Item, Result]] = []
        weight = 0
        while self._queues:
            owner, queue = next(iter(self._queues.items()))
            call = next(iter(queue))
            if batch and weight + call.weight > self._max_batch:
                break
            self._leave(call)
            if owner in self._queues:
                self._queues.move_to_end(owner)
            batch.append(call)
            weight += call.weight
        return batch

    async def _run_batch(self, batch: list[_Call[Item, Result]]) -> None:
        results: Sequence[Result | MooringError]
        deadline = max(call.deadline for call in batch)
        try:
            async with asyncio.timeout_at(deadline):
                results = await self._run([call.item for call in batch], deadline)
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} items got {len(results)} results")
        except MooringError as error:
            results = [error] * len(batch)
        except TimeoutError:
            results = [DeadlineExceeded("there was no answer in time")] * len(batch)
        except Exception:
            log.exception("a batch failed", items=len(batch))
            results = [Internal("internal error")] * len(batch)
        # Before anybody is answered: who calls again because of its answer is not a crowd.
        self._is_busy = self._waiting > 0
        for call, result in zip(batch, results, strict=True):
            if not call.future.done():
                call.future.set_result(result)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._wake_up()
