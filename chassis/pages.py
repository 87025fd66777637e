"""Pages of lists. A page has a size, and a cursor that callers send back unchanged."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from chassis.errors import InvalidInput

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 500

Row = TypeVar("Row")
Key = TypeVar("Key", int, str)


def page_size_of(asked: int) -> int:
    """The number of rows on a page; 0 means the default. Raises `InvalidInput`."""
    if not 0 <= asked <= MAX_PAGE_SIZE:
        raise InvalidInput(f"a page has 1 to {MAX_PAGE_SIZE} rows", field="page_size")
    return asked or DEFAULT_PAGE_SIZE


def after(cursor: str, kind: type[Key], *, largest: int = 2**63 - 1) -> Key | None:
    """The key of the last row that the caller has seen. Raises `InvalidInput`.

    `largest` is the largest value of the column, for an integer key.
    """
    if not cursor:
        return None
    try:
        key = json.loads(base64.b64decode(cursor.encode("ascii"), b"-_", validate=True))
        str(key).encode()  # raises for half of a surrogate pair, which JSON can escape
    except (UnicodeError, binascii.Error, ValueError, RecursionError):
        key = None
    if type(key) is not kind or "\0" in str(key) or (kind is int and not 0 <= int(key) <= largest):
        raise InvalidInput("this cursor is invalid", field="cursor")
    return key


def cut(
    rows: Sequence[Row], page_size: int, key_of: Callable[[Row], object]
) -> tuple[Sequence[Row], str]:
    """The page, and the cursor to the next one; "" on the last page. `rows` are up to
    `page_size + 1` rows.
    """
    if len(rows) <= page_size:
        return rows, ""
    page = rows[:page_size]
    return page, base64.urlsafe_b64encode(json.dumps(key_of(page[-1])).encode()).decode()
