"""Which rows an answer is made from: bounded whatever was asked for, and of the right times."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from registry_service.activity.series.ranges import (
    COARSER,
    DAY_S,
    HOUR_S,
    KEPT_S,
    MAX_POINTS,
    MAX_ROWS,
    MAX_ROWS_OF_ALL,
    MINUTE_S,
    range_of,
)

YEAR_1, YEAR_9999 = -62_135_596_800, 253_402_300_799
NOW = st.integers(1_700_000_000, 2_500_000_000)
# Around now, and everywhere.
OFFSETS = st.one_of(
    st.integers(-100 * DAY_S, 2 * DAY_S),
    st.integers(-3 * HOUR_S, 60),
    st.sampled_from([YEAR_1, YEAR_9999]),
)
LENGTHS = st.sampled_from([MINUTE_S, HOUR_S])


@given(LENGTHS, NOW, OFFSETS, OFFSETS, st.integers(0, 64))
def test_a_range_is_bounded_and_covers_what_it_should(
    row_s: int, now_s: int, since: int, until: int, fleets: int
) -> None:
    since_s, until_s = (
        offset if offset in (YEAR_1, YEAR_9999) else now_s + offset for offset in (since, until)
    )
    found = range_of(row_s, since_s, until_s, now_s, fleets)
    length_s, begin_s, end_s = found.rows.row_s, found.rows.begin_s, found.rows.end_s
    assert length_s in (row_s, COARSER[row_s], DAY_S)
    assert length_s >= row_s
    assert found.point_s % length_s == 0
    assert begin_s % found.point_s == 0
    assert len(found.points) <= MAX_POINTS
    until_s = min(until_s, now_s + DAY_S)
    since_s = min(since_s, until_s)
    oldest_s = now_s - KEPT_S[length_s]
    if begin_s == end_s:
        assert until_s <= max(oldest_s + 2 * found.point_s, since_s)
        assert 0 <= since_s - begin_s < length_s or begin_s >= oldest_s
    else:
        rows = (min(end_s, -(-now_s // length_s) * length_s) - begin_s) // length_s
        is_little = rows <= MAX_ROWS and rows * fleets <= MAX_ROWS_OF_ALL
        assert is_little or length_s == DAY_S
        # It begins with the point of `since`, or with the oldest whole point.
        assert oldest_s <= begin_s <= max(since_s, oldest_s + length_s + found.point_s)
        if since_s >= oldest_s + length_s + found.point_s:
            assert begin_s <= since_s < begin_s + found.point_s
        # It ends with the row of `until`.
        assert 0 <= end_s - until_s < length_s
    spans = [*found.spans]
    assert spans[0].begin_s == begin_s
    assert spans[-1].end_s == end_s
    for span, following in pairwise(spans):
        assert span.end_s == following.begin_s
    for span in spans:
        assert span.begin_s % span.row_s == span.end_s % span.row_s == 0
        assert span.row_s in (length_s, COARSER.get(length_s))


def test_a_short_range_has_points_of_the_step() -> None:
    now_s = 1_700_000_000
    found = range_of(MINUTE_S, now_s - 59 * 60, now_s, now_s, 1)
    assert (found.point_s, found.rows.row_s) == (MINUTE_S, MINUTE_S)
    assert len(found.points) == 60


def test_long_ranges_are_read_from_few_rows() -> None:
    now_s = 1_700_000_000
    of_one = range_of(HOUR_S, now_s - 60 * DAY_S, now_s, now_s, 1)
    assert (of_one.rows.row_s, of_one.point_s) == (HOUR_S, 5 * HOUR_S)
    of_many = range_of(MINUTE_S, now_s - 90 * DAY_S, now_s, now_s, 64)
    assert (of_many.rows.row_s, of_many.point_s) == (DAY_S, DAY_S)
    last_hour = range_of(MINUTE_S, now_s - 59 * 60, now_s, now_s, 64)
    assert (last_hour.rows.row_s, last_hour.point_s) == (MINUTE_S, MINUTE_S)
    # The reasons are read from whole days, and from hours at the ends.
    assert sum((one.end_s - one.begin_s) // one.row_s for one in of_one.spans) < 90 + 48
