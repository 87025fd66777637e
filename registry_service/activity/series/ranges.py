"""Decides which rows an answer is made from, and how long each of its points is, over plain values.

An answer takes some milliseconds whatever was asked for: it has at most `MAX_POINTS` points, which
are longer for longer ranges, and it sums up few rows: `MAX_ROWS` of one fleet, `MAX_ROWS_OF_ALL` of
several, or days. Times are Unix times in whole seconds. Points begin at multiples of their length.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

MAX_POINTS = 300
MAX_ROWS = 1_500
# The rows of an hour, of all the fleets that a token can have.
MAX_ROWS_OF_ALL = 64 * 61

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
# The lengths of the rows, and how long each is kept.
KEPT_S: Mapping[int, int] = {MINUTE_S: 2 * DAY_S, HOUR_S: 90 * DAY_S, DAY_S: 90 * DAY_S}
# The rows of a length are sums of rows of the one before.
COARSER: Mapping[int, int] = {MINUTE_S: HOUR_S, HOUR_S: DAY_S}


class Span(Struct, frozen=True):
    """Rows of one length that begin in a range of time."""

    row_s: int
    begin_s: int
    end_s: int


class Range(Struct, frozen=True):
    """What an answer covers: points of `point_s` from `begin_s`, made from the rows of `rows`."""

    rows: Span
    point_s: int

    @property
    def points(self) -> range:
        """When the points begin."""
        return range(self.rows.begin_s, self.rows.end_s, self.point_s)

    @property
    def spans(self) -> Iterator[Span]:
        """The same counts in fewer rows: the ends are rows of the length, the rest coarser ones."""
        row_s, begin_s, end_s = self.rows.row_s, self.rows.begin_s, self.rows.end_s
        coarser_s = COARSER.get(row_s, row_s)
        inner_s, last_s = _ceiling(begin_s, coarser_s), end_s // coarser_s * coarser_s
        if inner_s >= last_s:
            yield self.rows
            return
        yield Span(row_s, begin_s, inner_s)
        yield Span(coarser_s, inner_s, last_s)
        yield Span(row_s, last_s, end_s)


def range_of(row_s: int, since_s: int, until_s: int, now_s: int, fleets: int) -> Range:
    """The answer for rows of `row_s`, or of a longer length if there would be too many for so many
    `fleets`. It begins at `since_s` or with the oldest rows, and contains the rows that begin
    before `until_s`; it ends a day after now at the latest.
    """
    until_s = min(until_s, now_s + DAY_S)
    since_s = min(since_s, until_s)
    while True:
        oldest_s = _ceiling(now_s - KEPT_S[row_s], row_s)
        begin_s = max(since_s // row_s * row_s, oldest_s)
        end_s = _ceiling(until_s, row_s)
        if end_s <= begin_s:
            nothing_s = since_s // row_s * row_s
            return Range(Span(row_s, nothing_s, nothing_s), row_s)
        # There are no rows of the future.
        rows = (min(end_s, _ceiling(now_s, row_s)) - begin_s) // row_s
        is_little = rows <= MAX_ROWS and rows * fleets <= MAX_ROWS_OF_ALL
        if is_little or row_s not in COARSER:
            break
        row_s = COARSER[row_s]
    # One point less, because the first may begin before the first row.
    point_s = row_s * max(
        1, _ceiling((end_s - begin_s) // row_s, MAX_POINTS - 1) // (MAX_POINTS - 1)
    )
    begin_s = begin_s // point_s * point_s
    if begin_s < oldest_s:
        # A part of it was deleted.
        begin_s += point_s
    return Range(Span(row_s, begin_s, max(begin_s, end_s)), point_s)


def _ceiling(time_s: int, length_s: int) -> int:
    return -(-time_s // length_s) * length_s
