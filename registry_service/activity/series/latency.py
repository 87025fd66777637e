"""How long registrations took, as a histogram of fixed buckets, over plain values."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

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


def percentiles_s(counts: Sequence[int], percents: Sequence[float]) -> list[float]:
    """The times in seconds within which so many percent of the registrations were answered.

    `counts` are those of the buckets; the result is empty if all are 0. Within a bucket, times are
    taken to be spread evenly. A time beyond the last bound counts as that bound.
    """
    sums = [*accumulate(counts)]
    if not sums[-1]:
        return []
    found = []
    for percent in percents:
        wanted = sums[-1] * percent / 100
        index = bisect_left(sums, wanted)
        if index >= len(BOUNDS_S):
            found.append(BOUNDS_S[-1])
            continue
        start_s, below = (BOUNDS_S[index - 1], sums[index - 1]) if index else (0.0, 0)
        share = (wanted - below) / counts[index]
        found.append(start_s + (BOUNDS_S[index] - start_s) * share)
    return found
