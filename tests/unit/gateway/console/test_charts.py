"""The geometry of charts, for any values: it stays in its box and shows what was measured."""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.console.charts import LARGEST, SMALLEST, marks, nice_top, plot, shares, short, spark

WIDTH, HEIGHT = 720, 190
numbers = st.one_of(
    st.none(),
    st.integers(0, 2**63),
    st.floats(0, allow_nan=False),
    st.sampled_from([0, 1, math.inf, math.nan, -1, 10**400, 5e-324, 1.7e308]),
)
series = st.lists(numbers, max_size=80)
PATH = re.compile(r"(?:[ML]-?\d+\.?\d* -?\d+\.?\d*|Z|h0)*")


def is_shown(value: Any) -> bool:
    try:
        return value is not None and math.isfinite(float(value))
    except OverflowError:
        return False


def points_in(path: str) -> list[tuple[float, float]]:
    assert PATH.fullmatch(path), path
    found = [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+) ([^MLZh]+)", path)]
    for x, y in found:
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    return found


@given(series, series)
@example([], [])
@example([5], [5])
@example([0] * 60, [0] * 60)
@example([None, 3, None], [None])
@example([2**63], [10**400])
def test_a_plot_stays_in_its_box(values: list[Any], bars: list[Any]) -> None:
    made = plot(values, bars, WIDTH, HEIGHT)
    line = points_in(made.line)
    points_in(made.area)
    # One point for each value that was measured, from left to right.
    assert len(line) == sum(map(is_shown, values))
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert len(made.bars) == sum(is_shown(value) and value >= SMALLEST for value in bars)
    for bar in made.bars:
        assert bar.width > 0
        assert bar.height > 0
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH + 0.2
        assert 0 <= bar.y <= HEIGHT
        assert math.isclose(bar.y + bar.height, HEIGHT, abs_tol=0.11)
    heights = [height for height, _ in made.grid]
    assert (heights[0], heights[-1]) == (0, HEIGHT)
    assert heights == sorted(heights)
    assert made.grid[-1][1] == "0"
    assert all(len(text) <= 8 for _, text in made.grid)


@given(series)
def test_a_larger_value_is_never_drawn_lower(values: list[Any]) -> None:
    line, _ = spark(values, WIDTH, HEIGHT)
    drawn = [y for _, y in points_in(line)]
    shown = [max(0.0, float(value)) for value in values if is_shown(value)]
    for one, y in zip(shown, drawn, strict=True):
        for other, other_y in zip(shown, drawn, strict=True):
            assert one <= other or y <= other_y


@given(st.lists(numbers, min_size=1, max_size=40))
def test_the_scale_holds_every_value(values: list[Any]) -> None:
    top = nice_top(values)
    assert math.isfinite(top)
    assert top > 0
    largest = max((float(value) for value in values if is_shown(value)), default=0.0)
    largest = min(largest, LARGEST)
    assert top >= largest * (1 - 1e-9)
    # The scale is not so large that the values look like nothing.
    if largest >= 3:
        assert largest >= top / 4


def test_a_gap_separates_two_lines() -> None:
    line, area = spark([1, 2, None, 4, None, 5], WIDTH, HEIGHT)
    assert line.count("M") == 3
    assert line.endswith("h0")
    # A single point has no area.
    assert area.count("M") == 1


def test_the_scale_of_counts_has_whole_numbers() -> None:
    assert [text for _, text in plot([1, 0, 2], [], WIDTH, HEIGHT).grid] == ["3", "2", "1", "0"]
    assert [text for _, text in plot([590], [], WIDTH, HEIGHT).grid] == ["600", "400", "200", "0"]


@given(series)
def test_shares_are_parts_of_the_largest(values: list[Any]) -> None:
    found = shares(values)
    assert len(found) == len(values)
    assert all(0 <= share <= 100 for share in found)
    assert max(found, default=0) == (
        100 if any(is_shown(value) and value >= SMALLEST for value in values) else 0
    )


@given(st.integers(0, 300), st.integers(0, 9))
def test_marks_are_times_of_the_series(length: int, count: int) -> None:
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=place) for place in range(length)]
    found = marks(times, count)
    assert len(found) == min(length, count)
    assert found == sorted(set(found))
    if count >= 2 and times:
        assert (found[0], found[-1]) == (times[0], times[-1])


def test_numbers_are_short() -> None:
    shown = {0: "0", 950: "950", 1_200: "1.2 k", 3_000_000: "3 M", 2.5e9: "2.5 G", 0.004: "0.004"}
    assert {number: short(number) for number in shown} == shown
