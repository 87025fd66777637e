"""Where a child's output goes: one file per child and run, and the run before it beside it."""

from collections import deque
from pathlib import Path
from typing import BinaryIO


def begin(log: Path) -> BinaryIO:
    """An empty `log` to write to; what a previous run left there is kept as `log`.1."""
    log.parent.mkdir(mode=0o700, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    log.touch(mode=0o600)
    return resume(log)


def resume(log: Path) -> BinaryIO:
    """`log`, to write on at its end."""
    return log.open("ab")


def last_lines(log: Path, count: int = 10) -> str:
    """The end of `log`, as it is shown to a person."""
    with log.open(errors="replace") as lines:
        return "".join(f"  {line.rstrip()}\n" for line in deque(lines, count)).rstrip()
