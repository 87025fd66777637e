"""Takes an input apart: choices at its beginning, the rest behind them."""

from collections.abc import Sequence
from typing import TypeVar

One = TypeVar("One")


def chosen(data: bytes, options: Sequence[One]) -> tuple[One, bytes]:
    """An option, by the first byte of `data`, and what is behind that byte."""
    return options[data[0] % len(options) if data else 0], data[1:]


def lines(data: bytes, count: int) -> list[str]:
    """The first `count` lines as text; a line that is missing is empty."""
    found = data.decode("utf-8", "replace").split("\n", count - 1)
    return found + [""] * (count - len(found))
