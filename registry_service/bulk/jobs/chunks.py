"""Decides how large the next chunk of a job is, and how many ids it reads."""

from dataclasses import dataclass

# The time that a chunk should take. Registrations of the devices that it has locked wait for it.
GOAL_S = 0.2
SMALLEST, LARGEST = 100, 20_000
# How many ids one chunk of a filter reads, whether they match or not. So a filter with few matches
# does not read all devices in one statement.
SPAN = 100_000


@dataclass(frozen=True, slots=True)
class Extent:
    """The next rows after the number `reached`, up to `until`, at most `size` of them."""

    reached: int
    until: int
    size: int


def extent(reached: int, last: int, size: int, *, is_sparse: bool) -> Extent:
    """The next chunk. `is_sparse`: numbers are ids of devices, of which few may match."""
    return Extent(reached, min(reached + SPAN, last) if is_sparse else last, size)


def reached_by(extent: Extent, handled: int, highest: int) -> int:
    """The position after a chunk that handled so many rows, of which `highest` was the last."""
    return highest if handled == extent.size else extent.until


def next_size(size: int, handled: int, took_s: float) -> int:
    """The size with which the next chunk takes `GOAL_S`. A chunk that was not full does not change
    it.
    """
    if handled < size:
        return size
    wanted = round(size * min(2.0, max(0.25, GOAL_S / max(took_s, 0.001))))
    return max(SMALLEST, min(LARGEST, wanted))
