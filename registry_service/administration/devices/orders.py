"""In which order a filter lists devices, and the cursors in these lists.

There is an index in each of these orders, so a page never sorts all devices that match.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from chassis.errors import InvalidInput
from registry_service.filter_statements import CONDITIONS, NAME

LARGEST_ID = 2**63 - 1


class Key(NamedTuple):
    """A column of an order: its value, its type in SQL."""

    value: str
    type: str


class Phase(NamedTuple):
    """A part of a list: the devices that meet `condition`, in the order of `keys`.

    Those that meet `walked` lie together in the index of that order.
    """

    keys: tuple[Key, ...]
    walked: str
    condition: str

    @property
    def is_scattered(self) -> bool:
        """Whether devices that follow one another registered at different times, as most do in the
        order of names, so that they lie far apart in the table.
        """
        return self.keys[0] in (UUID, SEARCHED_NAME)


class Position(NamedTuple):
    """After which device a page begins: the phase, and the keys there; None at its beginning."""

    phase: int
    keys: Sequence[Any] | None


BEGINNING = Position(0, None)
ID = Key("device.id", "bigint")
UUID = Key("device.uuid", "text")
SEARCHED_NAME = Key(NAME, "text")
TIMES = ("registered_since", "registered_before")

# No uuid contains a character behind "~", and no name is longer than 255 characters.
BY_UUID = "device.uuid >= CAST(:{name} AS text) AND device.uuid < CAST(:{name} AS text) || '~'"
BY_NAME = (
    f"{NAME} >= lower(CAST(:search AS text)) AND {NAME}"
    " <= lower(CAST(:search AS text)) || repeat(chr(1114111), 255)"
)
MATCHES_UUID = "device.uuid ^@ CAST(:search AS text)"
MATCHES_NAME = f"{NAME} ^@ lower(CAST(:search AS text))"
SEARCH = (
    Phase((UUID,), BY_UUID.format(name="search"), MATCHES_UUID),
    Phase((SEARCHED_NAME, ID), BY_NAME, f"{MATCHES_NAME} AND NOT {MATCHES_UUID}"),
)


def phases_of(conditions: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases of the list of a filter, one after the other."""
    if "search" in conditions:
        return SEARCH
    if times := [CONDITIONS[name] for name in TIMES if name in conditions]:
        registered = " AND ".join(times)
        return (Phase((Key("device.provisioned_at", "timestamptz"), ID), registered, registered),)
    if "uuid_prefix" in conditions:
        name = "uuid_prefix"
        return (Phase((UUID,), BY_UUID.format(name=name), CONDITIONS[name]),)
    return (Phase((ID,), "true", "true"),)


def cursor_of(conditions: Mapping[str, Any], position: Position) -> str:
    """The cursor to `position` in the list of a filter."""
    value = [_digest(conditions), position.phase, position.keys]
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def position_of(conditions: Mapping[str, Any], cursor: str) -> Position:
    """Where a cursor points to; the beginning, if it is empty.

    Raises `InvalidInput` for a cursor that is none, or that belongs to another filter.
    """
    if not cursor:
        return BEGINNING
    try:
        digest, phase, keys = json.loads(base64.b64decode(cursor.encode("ascii"), b"-_", True))
    except (UnicodeError, binascii.Error, ValueError, TypeError, RecursionError):
        raise _invalid() from None
    if not isinstance(digest, str):
        raise _invalid()
    if digest != _digest(conditions):
        raise InvalidInput(
            "this cursor belongs to other conditions: begin without a cursor", field="cursor"
        )
    phases = phases_of(conditions)
    if type(phase) is not int or not 0 <= phase < len(phases):
        raise _invalid()
    if keys is None:
        return Position(phase, None)
    wanted = phases[phase].keys
    if type(keys) is not list or len(keys) != len(wanted) or not all(map(_is, wanted, keys)):
        raise _invalid()
    return Position(phase, keys)


def _invalid() -> InvalidInput:
    return InvalidInput("this cursor is invalid", field="cursor")


def _is(key: Key, value: object) -> bool:
    """Whether PostgreSQL reads the value as the key's type."""
    if key.type == "bigint":
        return type(value) is int and 0 <= value <= LARGEST_ID
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
        if key.type == "timestamptz":
            return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
    return True


def _digest(conditions: Mapping[str, Any]) -> str:
    text = json.dumps(conditions, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
