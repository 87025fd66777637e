"""Figures and their goals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.errors import CannotMeasure


@dataclass(frozen=True)
class Goal:
    """The value that a figure must reach, and the value that it should reach."""

    must: float
    aim: float
    at_most: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` reaches what it must."""
        return value <= self.must if self.at_most else value >= self.must

    def is_reached(self, value: float) -> bool:
        """Whether `value` reaches what it should."""
        return value <= self.aim if self.at_most else value >= self.aim

    @property
    def sign(self) -> str:
        """The comparison between a figure and its goal."""
        return "≤" if self.at_most else "≥"


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    measured: str
    yardstick: str = ""
    value: float | None = None
    """What the goal is about: a ratio, or a number in `unit`. None is for the reader only."""
    unit: str = ""
    goal: Goal | None = None

    @property
    def fails(self) -> bool:
        """Whether the value misses what it must reach."""
        return self.goal is not None and (self.value is None or not self.goal.holds(self.value))


@dataclass(frozen=True)
class Point:
    """Throughput and latency with so many connections."""

    connections: int
    per_s: float
    p99_s: float


@dataclass(frozen=True)
class Findings:
    """The results of a row. `curves` are lines of the chart, by title."""

    figures: tuple[Figure, ...]
    curves: tuple[tuple[str, tuple[Point, ...]], ...] = ()


@dataclass
class Turns:
    """Ours and the yardstick, measured in turns, so that changes of the machine's speed affect
    both.
    """

    ours: list[float] = field(default_factory=list)
    yardstick: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the ratios of each pair."""
        pairs = zip(self.ours, self.yardstick, strict=True)
        return median(ours / yardstick for ours, yardstick in pairs)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that is not exceeded by at least `share` of them."""
    if not values:
        raise CannotMeasure("nothing was measured")
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, int(rank) - 1)]


def zero(what: str, count: float) -> Figure:
    """A figure that must be zero."""
    return Figure(what, f"{count:,.0f}", value=count, goal=Goal(0, 0, at_most=True))


def per_s(rate: float) -> str:
    """Formats a rate for the table."""
    return f"{rate:,.0f}/s"


def ms(seconds: float) -> str:
    """Formats a time for the table."""
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"
