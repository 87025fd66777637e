"""A queue of calls that wait for a batch, bounded by items and by bytes, and fair to owners."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from chassis.errors import MooringError
from chassis.log import request_id

Item = TypeVar("Item")
Result = TypeVar("Result")


class Call(Generic[Item, Result]):
    """A waiting item. `future` gets the result; a `MooringError` is a result too."""

    __slots__ = (
        *("_queue", "deadline", "future", "is_waiting", "item", "owner"),
        *("request_id", "since", "size", "weight"),
    )

    def __init__(
        self,
        queue: "Queue[Item, Result]",
        item: Item,
        weight: int,
        size: int,
        owner: Hashable,
        deadline: float,
        since: float,
        future: "asyncio.Future[Result | MooringError]",
    ) -> None:
        """`weight` is the number of items inside `item`, `size` its bytes. Times are of the loop's
        clock.
        """
        self._queue = queue
        self.item = item
        self.weight = weight
        self.size = size
        self.owner = owner
        self.deadline = deadline
        self.since = since
        self.future = future
        self.request_id = request_id.get()
        self.is_waiting = False

    def leave(self) -> None:
        """Cancels the call if it has not started."""
        if self.is_waiting:
            self._queue.remove(self)

    async def result(self) -> Result:
        """Waits for the result, and raises it if it is an error. If the caller is cancelled, the
        call leaves the queue.
        """
        try:
            result = await self.future
        finally:
            self.leave()
        if isinstance(result, MooringError):
            raise result
        return result

    def abandon(self) -> None:
        """Call it when the caller no longer waits for the result."""
        self.leave()
        self.future.cancel()


class Queue(Generic[Item, Result]):
    """Calls are taken from each owner in turn, and one owner may fill at most half of the queue. So
    calls with one provisioning key cannot displace calls with other keys. A client that invents
    keys still can, which limits by address prevent. Calls without an owner may fill the whole
    queue.
    """

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        """The queue is empty at first."""
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._calls: OrderedDict[Hashable, dict[Call[Item, Result], None]] = OrderedDict()
        self._items_of: dict[Hashable, int] = {}
        self._bytes = 0
        self.items = 0

    def __iter__(self) -> Iterator[Call[Item, Result]]:
        """Iterates over all waiting calls."""
        return (call for calls in self._calls.values() for call in calls)

    def has_room(self, owner: Hashable, weight: int, size: int) -> bool:
        """Whether a call may join."""
        return (
            self.items + weight <= self._max_items
            and self._bytes + size <= self._max_bytes
            and (owner is None or self._items_of.get(owner, 0) + weight <= self._max_items // 2)
        )

    def join(self, call: Call[Item, Result]) -> None:
        """Adds a call after the others of its owner."""
        owner = call.owner
        calls = self._calls.get(owner)
        if calls is None:
            self._calls[owner] = {call: None}
            self._items_of[owner] = call.weight
        else:
            calls[call] = None
            self._items_of[owner] += call.weight
        self.items += call.weight
        self._bytes += call.size
        call.is_waiting = True

    def remove(self, call: Call[Item, Result]) -> None:
        """Removes a waiting call."""
        call.is_waiting = False
        self.items -= call.weight
        self._bytes -= call.size
        calls = self._calls[call.owner]
        del calls[call]
        if calls:
            self._items_of[call.owner] -= call.weight
        else:
            del self._calls[call.owner]
            del self._items_of[call.owner]

    def draw(self, max_items: int) -> list[Call[Item, Result]]:
        """Removes the next batch: one call of each owner in turn, and at least one call."""
        drawn: list[Call[Item, Result]] = []
        items = 0
        while self._calls:
            owner, calls = next(iter(self._calls.items()))
            call = next(iter(calls))
            if drawn and items + call.weight > max_items:
                break
            self.remove(call)
            if len(self._calls) > 1 and owner in self._calls:
                self._calls.move_to_end(owner)
            drawn.append(call)
            items += call.weight
        return drawn
