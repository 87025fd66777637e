"""Lists that are searched for a text: the rows that match best come first."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import sqlalchemy as sa

from chassis import pages
from chassis.errors import InvalidInput
from chassis.validation import check_text

LONGEST = 255
# Shorter texts begin too many random ids.
SHORTEST_ID = 4
# How well a row matches: it is equal, a text of it begins with what is searched for or contains it,
# or its id begins with it.
EQUAL, BEGINS, CONTAINS, ID_BEGINS = RANKS = range(4)
NUMBER = re.compile(r"[0-9]{1,18}")

Key = TypeVar("Key", int, str, UUID)


@dataclass(frozen=True, slots=True)
class Start(Generic[Key]):
    """Where a page of a list begins."""

    # The key of the last row that the caller has seen; None at the first page.
    key: Key | None = None
    # If it is not empty, only rows that match are listed, in the order of their ranks and keys.
    search: str = ""
    rank: int = EQUAL

    def place_of(self, rank: int, key: Key) -> int | str:
        """What a cursor says of a row."""
        if self.search:
            return f"{rank} {key}"
        return key if isinstance(key, int) else str(key)


def start_of(search: str, cursor: str, kind: type[Key], *, largest: int = 2**63 - 1) -> Start[Key]:
    """Where a page begins. A cursor belongs to the search of its page. Raises `InvalidInput`.

    `largest` is the largest value of the column, for an integer key.
    """
    check_text("search", search, longest=LONGEST)
    if not search:
        last = (
            pages.after(cursor, int, largest=largest) if kind is int else pages.after(cursor, str)
        )
        return Start(None if last is None else _key(kind, str(last), largest))
    place = pages.after(cursor, str)
    if place is None:
        return Start(None, search)
    rank, _, text = place.partition(" ")
    if rank not in map(str, RANKS):
        raise InvalidInput("this cursor is invalid", field="cursor")
    return Start(_key(kind, text, largest), search, int(rank))


def _key(kind: type[Key], text: str, largest: int) -> Key:
    try:
        key = kind(text)
    except ValueError:
        raise InvalidInput("this cursor is invalid", field="cursor") from None
    if isinstance(key, int) and not 0 <= key <= largest:
        raise InvalidInput("this cursor is invalid", field="cursor")
    return key


def ordered(
    query: sa.Select[Any],
    start: Start[Any],
    key: sa.Column[Any],
    *,
    texts: Iterable[sa.ColumnElement[str]],
    ids: Iterable[sa.ColumnElement[str]] = (),
    is_newest_first: bool = False,
) -> sa.Select[tuple[Any, ...]]:
    """The rows of `query` from the start on, with their `rank`. A row matches if one of `texts`
    contains what is searched for, one of `ids` begins with it, or `key` does if it is a UUID, or is
    equal if it is a number.
    """
    by = key.desc() if is_newest_first else key.asc()
    if not start.search:
        query = query.add_columns(sa.literal(EQUAL).label("rank")).order_by(by)
        return query if start.key is None else query.where(_beyond(key, start, is_newest_first))
    if isinstance(key.type, sa.Uuid):
        ids = [*ids, sa.cast(key, sa.Text)]
    rank, matches = _rank(start.search, key, list(texts), list(ids))
    query = query.add_columns(rank.label("rank")).where(matches).order_by(rank, by)
    if start.key is None:
        return query
    follows = sa.and_(rank == start.rank, _beyond(key, start, is_newest_first))
    return query.where(sa.or_(rank > start.rank, follows))


def _beyond(
    key: sa.Column[Any], start: Start[Any], is_newest_first: bool
) -> sa.ColumnElement[bool]:
    return key < start.key if is_newest_first else key > start.key


def _rank(
    search: str,
    key: sa.Column[Any],
    texts: list[sa.ColumnElement[str]],
    ids: list[sa.ColumnElement[str]],
) -> tuple[sa.ColumnElement[int], sa.ColumnElement[bool]]:
    """How well a row matches, and whether it does, which costs less to know."""
    wanted = _lower(sa.literal(search))
    texts, ids = [_lower(text) for text in texts], [_lower(text) for text in ids]
    equal = [text == wanted for text in (*texts, *ids)]
    if isinstance(key.type, sa.Integer) and NUMBER.fullmatch(search):
        equal.append(key == sa.literal(int(search), sa.BigInteger))
    contains = [sa.func.strpos(text, wanted) > 0 for text in texts]
    whens = [
        (sa.or_(*equal), EQUAL),
        (sa.or_(*(sa.func.starts_with(text, wanted) for text in texts)), BEGINS),
        (sa.or_(*contains), CONTAINS),
    ]
    # A text that is equal, or begins so, contains it.
    matches = [*contains, *equal[len(texts) :]]
    if ids and len(search) >= SHORTEST_ID:
        begins = [sa.func.starts_with(text, wanted) for text in ids]
        whens.append((sa.or_(*begins), ID_BEGINS))
        matches += begins
    return sa.case(*whens), sa.or_(*matches)


def _lower(text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """The text in lower case; a column may have a collation that knows ASCII letters only."""
    return sa.func.lower(sa.collate(text, "default"))
