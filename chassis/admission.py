"""Calculates when a queue is too long to join, and when refused clients should try again. Times are
seconds of the caller's clock.
"""

import random

# The rate is measured over the last few hundred milliseconds of work; older work counts for less.
WINDOW_S = 0.25
WEIGHT_OF_NEW = 0.5

# Older measurements are dropped, because the rate may be very different now.
FORGOTTEN_AFTER_S = 5.0

# The longest time until a client tries again; a client that would wait longer gets a random time in
# the last half.
LONGEST_S = 60.0
# The wait if the queue does not drain, or its rate is not known yet.
BLIND_S = 2.0


def blind_wait_s() -> float:
    """A random wait for a refused client, if the rate is not known."""
    return random.uniform(BLIND_S / 2, BLIND_S * 2)  # noqa: S311


class Drain:
    """How fast a queue drains while there is something in it."""

    def __init__(self) -> None:
        """The rate is unknown until a first batch has ended."""
        self._rate = 0.0  # items per second; 0 while unknown
        self._items = 0
        self._busy_s = 0.0
        self._last_end = 0.0

    def ended(self, items: int, begun: float, now: float) -> None:
        """Counts a full batch of `items` that began at `begun` and has ended. Batches may overlap.
        So the time of a batch counts from the end of the last batch, or from its own begin if that
        is later.
        """
        self._items += items
        self._busy_s += now - max(begun, self._last_end)
        self._last_end = now
        if self._busy_s >= WINDOW_S or not self._rate:
            rate = self._items / max(self._busy_s, 1e-6)
            self._rate += (rate - self._rate) * (WEIGHT_OF_NEW if self._rate else 1)
            self._items = 0
            self._busy_s = 0.0

    def rate(self, now: float) -> float:
        """Items per second; 0 while unknown."""
        return self._rate if now - self._last_end <= FORGOTTEN_AFTER_S else 0.0

    def time_for(self, items: int, now: float) -> float:
        """How long `items` take, in seconds; 0 while unknown."""
        rate = self.rate(now)
        return items / rate if rate else 0.0


class RetrySchedule:
    """Gives each refused client its own time to try again. Clients with the same time would try
    together and be refused together. So refused clients form a second queue behind the real one:
    each gets the time at which the queue reaches it, at the present rate.
    """

    def __init__(self) -> None:
        """No client has been refused yet."""
        self._last = 0.0

    def next(self, drain: Drain, waiting: int, items: int, now: float) -> float:
        """The seconds after which a client with `items` should try again; more than 0."""
        if not drain.rate(now):
            return blind_wait_s()
        free_at = now + drain.time_for(waiting, now)
        at = max(self._last, free_at) + drain.time_for(items, now)
        if at - now > LONGEST_S:
            return random.uniform(LONGEST_S / 2, LONGEST_S)  # noqa: S311
        self._last = at
        return at - now
