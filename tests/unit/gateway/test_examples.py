"""The example of each type is valid: it can be parsed as that type, and has no other fields."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import Struct

import gateway.app


def exemplified(kind: type[Struct]) -> Iterator[type[Struct]]:
    """All types of the gateway below `kind` with their own example."""
    for below in kind.__subclasses__():
        if below.__module__.startswith("gateway.") and "EXAMPLE" in vars(below):
            yield below
        yield from exemplified(below)


KINDS: list[Any] = sorted(
    (kind for kind in exemplified(Struct) if gateway.app), key=lambda kind: kind.__qualname__
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_example_is_valid(kind: Any) -> None:
    assert set(kind.EXAMPLE) <= set(kind.__struct_encode_fields__)
    msgspec.convert(kind.EXAMPLE, kind)


def test_there_are_examples() -> None:
    assert len(KINDS) > 50
