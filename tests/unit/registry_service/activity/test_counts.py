"""What is counted in memory: nothing is lost within the limits, and the limits are kept."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from registry_service.activity.series.counts import ALL_FLEETS, MAX_REASONS, OTHER, Counts, Minute
from registry_service.activity.series.latency import (
    BOUNDS_S,
    BUCKETS,
    bucket_of,
    percentiles_s,
)

TIMES = st.lists(st.floats(0, 20), min_size=1, max_size=200)
PERCENT = st.floats(1, 99)
FLEETS = st.sampled_from(["", "a", "b"])
NOTED = st.lists(
    st.tuples(
        st.integers(0, 400),  # seconds
        FLEETS,
        st.sampled_from(["new", "known", "A", "B_2"]),
        st.integers(1, 5),
        st.sampled_from(["", "taken", "put back"]),
    ),
    max_size=60,
)


def lost() -> float:
    return REGISTRY.get_sample_value("mooring_series_lost_total") or 0.0


@given(TIMES, PERCENT)
def test_a_percentile_is_in_the_bucket_of_the_exact_one(times: list[float], percent: float) -> None:
    counts = [0] * BUCKETS
    for took_s in times:
        counts[bucket_of(took_s)] += 1
    # At least so many are not above it.
    exact = next(
        took_s
        for position, took_s in enumerate(sorted(times), 1)
        if position >= len(times) * percent / 100
    )
    [found] = percentiles_s(counts, [percent])
    edges = (0.0, *BOUNDS_S, BOUNDS_S[-1])
    bucket = bucket_of(exact)
    assert edges[bucket] <= found <= edges[bucket + 1] + 1e-12


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentiles_s([0] * BUCKETS, [50]) == []


@given(st.lists(st.integers(0, 9), min_size=BUCKETS, max_size=BUCKETS))
def test_percentiles_are_in_their_order(counts: list[int]) -> None:
    found = percentiles_s(counts, range(1, 100, 7))
    assert len(found) == (15 if any(counts) else 0)
    assert all(one <= other for one, other in pairwise(found))


@given(NOTED)
def test_all_is_in_what_was_taken_and_in_what_was_not(
    noted: list[tuple[int, str, str, int, str]],
) -> None:
    """Whether it was put back meanwhile or not; each fleet's is in that of all fleets too."""
    counts, expected, found = Counts(), Counter[object](), Counter[object]()

    def take() -> dict[tuple[int, str], Minute]:
        taken = counts.take()
        for (minute, fleet_id), held in taken.items():
            assert sum(held.latency) == held.new_devices + held.known_devices
            found[minute, fleet_id, "new"] += held.new_devices
            found[minute, fleet_id, "known"] += held.known_devices
            for reason, count in held.reasons.items():
                found[minute, fleet_id, reason] += count
        return taken

    for second, fleet_id, what, count, then in noted:
        if what in ("new", "known"):
            counts.registered({(fleet_id, what == "new"): count}, 0.01, float(second))
        else:
            counts.refused(what, fleet_id, float(second), count)
        for name in {ALL_FLEETS, fleet_id}:
            expected[second // 60, name, what] += count
        if then == "taken":
            take()
        elif then == "put back":
            counts.put_back(counts.take())
    take()
    assert +found == expected
    assert not counts.take()


def test_minutes_fleets_and_reasons_are_bounded() -> None:
    counts, before = Counts(minutes=3, of_fleets=5), lost()
    for fleet in range(100_000):
        counts.refused("DEVICE_TAKEN", f"fleet-{fleet}", 0.0)
    assert len(counts) == 6
    assert lost() - before == 100_000 - 5
    for minute in range(100):
        counts.refused("DEVICE_TAKEN", "", 60.0 * minute)
    assert len(counts) == 3 + 5
    for reason in range(10_000):
        counts.refused(f"REASON_{reason}", "", 0.0)
    counts.refused("no reason", "", 0.0)
    counts.refused("X" * 100_000, "", 0.0)
    held = counts.take()[0, ALL_FLEETS]
    assert len(held.reasons) == MAX_REASONS + 1
    # None of them is missing, and those before are as they were.
    assert held.reasons.total() == 100_000 + 1 + 10_000 + 2
    assert held.reasons["DEVICE_TAKEN"] == 100_001
    assert held.reasons[OTHER] > 2


@pytest.mark.parametrize("is_full", [False, True])
def test_what_is_put_back_is_bounded_too(*, is_full: bool) -> None:
    counts, before = Counts(minutes=2, of_fleets=2), lost()
    for minute in range(2):
        counts.registered({("a", True): 3}, 0.1, 60.0 * minute)
    taken = counts.take()
    for minute in range(10, 12 if is_full else 10):
        counts.refused("A", "b", 60.0 * minute)
    counts.put_back(taken)
    assert len(counts) == 4
    assert lost() - before == (6 if is_full else 0)
