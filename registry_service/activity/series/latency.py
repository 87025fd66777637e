"""How long registrations took, as a histogram of fixed buckets, over plain values."""

from bisect import bisect_left
from collections.abc import Sequence

# The upper bounds of the buckets in seconds (the series R5 of ISO 3); what took longer is in one
# more bucket. A percentile is wrong by the width of its bucket at most, which is 60 %.
BOUNDS_S = (
    *(0.001, 0.0016, 0.0025, 0.004, 0.0063),
    *(0.01, 0.016, 0.025, 0.04, 0.063),
    *(0.1, 0.16, 0.25, 0.4, 0.63),
    *(1.0, 1.6, 2.5, 4.0, 6.3),
    10.0,
)
BUCKETS = len(BOUNDS_S) + 1


def bucket_of(took_s: float) -> int:
    """The index of the bucket."""
    return bisect_left(BOUNDS_S, took_s)


def percentile_s(counts: Sequence[int], percent: float) -> float | None:
    """The time in seconds within which `percent` of the registrations were answered.

    `counts` are those of the buckets; None if all are 0. Within a bucket, times are taken to be
    spread evenly. A time beyond the last bound counts as that bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = total * percent / 100
    below = 0.0
    for index, count in enumerate(counts[: len(BOUNDS_S)]):
        if count and below + count >= wanted:
            start = BOUNDS_S[index - 1] if index else 0.0
            return start + (BOUNDS_S[index] - start) * max(0.0, wanted - below) / count
        below += count
    return BOUNDS_S[-1]
