"""When a queue is too long to join, and when those it refuses should come back.

Over plain numbers: times are seconds of whatever clock the caller has.
"""

import random

# The rate is that of the last few hundred milliseconds of work; older work counts for less.
WINDOW_S = 0.25
WEIGHT_OF_NEW = 0.5

# Nobody is sent away for longer; who would wait longer comes at a random time of the last half.
LONGEST_S = 60.0
# Where nothing drains, or nobody knows yet how fast.
BLIND_S = 2.0


class Drain:
    """How fast a queue drains while there is something in it."""

    def __init__(self) -> None:
        """Knows nothing until a first batch has ended."""
        self.rate = 0.0  # items per second; 0 while unknown
        self._items = 0
        self._busy_s = 0.0
        self._last_end = 0.0

    def ended(self, items: int, begun: float, now: float) -> None:
        """A batch of `items` that began at `begun` has ended.

        Batches that overlap share the time: what counts is the time since the last one ended, less
        any in which nothing was in flight.
        """
        self._items += items
        self._busy_s += now - max(begun, self._last_end)
        self._last_end = now
        if self._busy_s >= WINDOW_S or not self.rate:
            rate = self._items / max(self._busy_s, 1e-6)
            self.rate += (rate - self.rate) * (WEIGHT_OF_NEW if self.rate else 1)
            self._items = 0
            self._busy_s = 0.0

    def time_for(self, items: int) -> float:
        """How long `items` take, in seconds; 0 while nobody knows."""
        return items / self.rate if self.rate else 0.0


class Appointments:
    """Gives each refused client a time to come back, one after the other.

    Clients that are all told the same come back together and are refused together. So the refused
    stand in a line too, behind the queue: each is told when its turn will be, at the rate at which
    the queue drains.
    """

    def __init__(self) -> None:
        """Nobody has been sent away yet."""
        self._last = 0.0

    def next(self, drain: Drain, waiting: int, items: int, now: float) -> float:
        """In how many seconds a client with `items` should come back; more than 0."""
        if not drain.rate:
            return random.uniform(BLIND_S / 2, BLIND_S * 2)  # noqa: S311
        free_at = now + drain.time_for(waiting)
        at = max(self._last, free_at) + drain.time_for(items)
        if at - now > LONGEST_S:
            return random.uniform(LONGEST_S / 2, LONGEST_S)  # noqa: S311
        self._last = at
        return at - now
