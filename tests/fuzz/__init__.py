"""Fuzzes the parsers of what clients, brokers and operators send, guided by coverage.

Each module in `targets` is one target: `SEEDS` is what the search begins with, `WORDS` is what it
puts into an input, and `attempt` raises for an input that shows a fault. `python -m tests.fuzz
TARGET SECONDS` runs one; `make test-all` runs each for FUZZ_S seconds (5 unless that is set).
"""

from importlib import import_module
from typing import Protocol, cast

TARGETS = (
    *("bodies", "broker_lists", "dialects", "hashes", "headers", "hosts", "http", "mqtt", "pem"),
    *("rows", "tickets", "topics", "urls"),
)
# The packages whose coverage guides the search.
MEASURED = ("broker_service", "chassis", "gateway", "registry_service")
MAX_BYTES = 8_192
# The longest processor time for one input.
SLOW_S = 1.0


class Target(Protocol):
    """What each module in `targets` has."""

    SEEDS: tuple[bytes, ...]
    WORDS: tuple[bytes, ...]

    def attempt(self, data: bytes) -> None:
        """Raises for an input that shows a fault."""


def target(name: str) -> Target:
    return cast("Target", import_module(f"tests.fuzz.targets.{name}"))


def case(name: str, data: bytes) -> str:
    """The source of a test of one input."""
    return (
        f"from tests.fuzz.targets import {name}\n\n\n"
        f"def test_found() -> None:\n    {name}.attempt({data!r})\n"
    )
