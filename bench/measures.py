"""Figures, and what is asked of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.errors import CannotMeasure


@dataclass(frozen=True)
class Goal:
    """What a figure must reach, and should."""

    must: float
    aim: float
    at_most: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is what it must be."""
        return value <= self.must if self.at_most else value >= self.must

    def is_reached(self, value: float) -> bool:
        """Whether `value` is what it should be."""
        return value <= self.aim if self.at_most else value >= self.aim

    @property
    def sign(self) -> str:
        """How a figure compares with what is asked of it."""
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
        """Whether it is not what it must be."""
        return self.goal is not None and (self.value is None or not self.goal.holds(self.value))


@dataclass(frozen=True)
class Point:
    """Throughput and latency with so many connections."""

    connections: int
    per_s: float
    p99_s: float


@dataclass(frozen=True)
class Findings:
    """What a row found. `curves` are for the chart, by what is drawn."""

    figures: tuple[Figure, ...]
    curves: tuple[tuple[str, tuple[Point, ...]], ...] = ()


@dataclass
class Turns:
    """Ours and the yardstick, measured in turns: the machine's speed swings, and hits both."""

    ours: list[float] = field(default_factory=list)
    yardstick: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the ratios of neighbours."""
        pairs = zip(self.ours, self.yardstick, strict=True)
        return median(ours / yardstick for ours, yardstick in pairs)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    if not values:
        raise CannotMeasure("nothing was measured")
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, int(rank) - 1)]


def zero(what: str, count: float) -> Figure:
    """A figure that must be nothing at all."""
    return Figure(what, f"{count:,.0f}", value=count, goal=Goal(0, 0, at_most=True))


def per_s(rate: float) -> str:
    """As the table shows it."""
    return f"{rate:,.0f}/s"


def ms(seconds: float) -> str:
    """As the table shows it."""
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"
