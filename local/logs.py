"""The log files of children: one for each child, and the one of the previous run beside it."""

from collections import deque
from pathlib import Path
from typing import BinaryIO


def begin(log: Path) -> BinaryIO:
    """An empty `log`; the log of the previous run is kept as `log`.1."""
    log.parent.mkdir(mode=0o700, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    log.touch(mode=0o600)
    return resume(log)


def resume(log: Path) -> BinaryIO:
    """`log`, opened for appending."""
    return log.open("ab")


def last_lines(log: Path, count: int = 10) -> str:
    """The last lines of `log`, to show to a person."""
    with log.open(errors="replace") as lines:
        return "".join(f"  {line.rstrip()}\n" for line in deque(lines, count)).rstrip()
