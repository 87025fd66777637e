"""Compares registrations in a full database with registrations in a nearly empty one."""

from collections.abc import Callable
from statistics import median

from bench.measures import Figure, Turns, per_s

CONNECTIONS = 64
ROUNDS = 3
SECONDS = 2.0
WARM_UP_S = 1.0

# Registers for so many seconds, and returns registrations per second.
Load = Callable[[float], float]


def compared(more: Load, little: Load) -> Turns:
    """Measures both in turns, after a warm-up of both."""
    turns = Turns()
    more(WARM_UP_S)
    little(WARM_UP_S)
    for _ in range(ROUNDS):
        turns.yardstick.append(little(SECONDS))
        turns.ours.append(more(SECONDS))
    return turns


def figure(what: str, against: str, turns: Turns) -> Figure:
    """The line of the table. It has no goal."""
    return Figure(
        f"registrations {what}, {CONNECTIONS} connections",
        per_s(median(turns.ours)),
        f"{against}: {per_s(median(turns.yardstick))}",
        turns.ratio,
    )
