"""Splits an input: the bytes at its beginning are choices, the rest is data."""

from collections.abc import Sequence
from typing import TypeVar

One = TypeVar("One")


def chosen(data: bytes, options: Sequence[One]) -> tuple[One, bytes]:
    """The option that the first byte of `data` chooses, and the bytes after it."""
    return options[data[0] % len(options) if data else 0], data[1:]


def lines(data: bytes, count: int) -> list[str]:
    """The first `count` lines as text; a line that is missing is empty."""
    found = data.decode("utf-8", "replace").split("\n", count - 1)
    return found + [""] * (count - len(found))
