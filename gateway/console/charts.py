"""Charts: values become the geometry of an SVG, with numbers only. It knows no page.

A value is a number of at least 0, or None for a gap, where nothing was measured. Paths are in the
coordinates of the box, with one decimal, and never leave it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

Value = float | int | None
Point = tuple[float, float]

# The steps between the lines of the grid, in units of a power of ten.
STEPS = (1, 2, 2.5, 5, 10)
LINES = 3
# Smaller numbers are drawn as 0; counts have 64 bits.
SMALLEST, LARGEST = 1e-12, 1e19


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle that stands on the lower edge of the box."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Plot:
    """An area for some values and bars for others, over one scale and a grid."""

    width: int
    height: int
    line: str
    area: str
    bars: Sequence[Bar]
    # The heights of the lines of the grid, from top to bottom, and their numbers.
    grid: Sequence[tuple[float, str]]


def plot(values: Sequence[Value], bars: Sequence[Value], width: int, height: int) -> Plot:
    """`values` as a line with an area, `bars` before it."""
    top = nice_top([*values, *bars])
    points = _points(values, width, height, top)
    return Plot(
        width,
        height,
        line=line_of(points),
        area=area_of(points, height),
        bars=bars_of(bars, width, height, top),
        grid=[
            (_rounded(height * step / LINES), short(top * (LINES - step) / LINES))
            for step in range(LINES + 1)
        ],
    )


def spark(values: Sequence[Value], width: int, height: int) -> tuple[str, str]:
    """The paths of a small chart without a grid: its line and its area."""
    # The line is two units wide, so that its upper half needs room.
    points = _points(values, width, height, nice_top(values), room=2)
    return line_of(points), area_of(points, height)


def nice_top(values: Sequence[Value]) -> float:
    """The number at the upper edge: at least the largest value, and easy to divide by `LINES`."""
    largest = max((number for value in values if (number := _number(value)) is not None), default=0)
    if largest <= 0:
        return float(LINES)
    least = largest / LINES
    power = 10.0 ** math.floor(math.log10(least))
    step = next((step * power for step in STEPS if step * power >= least), 10 * power)
    # Counts are whole numbers: their lines are too.
    if all(isinstance(value, int | None) for value in values):
        step = max(1.0, float(math.ceil(step)))
    return step * LINES


def _number(value: Value) -> float | None:
    """The value, or None if it is a gap or no number that a chart can show."""
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number):
        return None
    return 0.0 if number < SMALLEST else min(number, LARGEST)


def _points(
    values: Sequence[Value], width: int, height: int, top: float, room: int = 0
) -> list[Point | None]:
    """The places of the values; the first is at the left edge and the last at the right one."""
    step = width / max(1, len(values) - 1)
    found: list[Point | None] = []
    for place, value in enumerate(values):
        number = _number(value)
        if number is None:
            found.append(None)
        else:
            share = min(1.0, number / top)
            found.append((_rounded(place * step), _rounded(room + (height - room) * (1 - share))))
    return found


def runs(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    """The points without gaps between them."""
    run: list[Point] = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []


def line_of(points: Sequence[Point | None]) -> str:
    """The path of a line; a single point is a dot."""
    parts = []
    for run in runs(points):
        first = f"M{_text(run[0])}"
        parts.append(first + ("".join(f"L{_text(point)}" for point in run[1:]) or "h0"))
    return "".join(parts)


def area_of(points: Sequence[Point | None], height: int) -> str:
    """The path of the area under the line."""
    return "".join(
        f"M{run[0][0]} {height}"
        + "".join(f"L{_text(point)}" for point in run)
        + f"L{run[-1][0]} {height}Z"
        for run in runs(points)
        if len(run) > 1
    )


def bars_of(values: Sequence[Value], width: int, height: int, top: float) -> list[Bar]:
    """A bar for each value that is more than zero, which is at least half a unit high."""
    room = width / max(1, len(values))
    found = []
    for place, value in enumerate(values):
        number = _number(value)
        if not number:
            continue
        tall = _rounded(max(0.5, height * min(1.0, number / top)))
        found.append(
            Bar(
                _rounded(place * room + room * 0.2),
                _rounded(height - tall),
                max(0.1, _rounded(room * 0.6)),
                tall,
            )
        )
    return found


def shares(values: Sequence[Value]) -> list[float]:
    """Each value as a part of the largest one, from 0 to 100; a gap is 0."""
    numbers = [_number(value) or 0.0 for value in values]
    largest = max(numbers, default=0.0)
    return [_rounded(100 * (number / largest)) if largest else 0.0 for number in numbers]


def marks(times: Sequence[datetime], count: int) -> list[datetime]:
    """At most `count` of the times, evenly spread, with the first and the last."""
    if len(times) <= count or count < 2:
        return list(times[:count])
    last = len(times) - 1
    return [times[round(place * last / (count - 1))] for place in range(count)]


def short(number: float) -> str:
    """A number as a few characters: 950, 1.2 k, 3 M."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < size * 1e3 else f"{number:.2g}"
    return f"{number:.3g}"


def _rounded(number: float) -> float:
    return round(number, 1)


def _text(point: Point) -> str:
    return f"{point[0]} {point[1]}"
