"""Lists, a page at a time."""

from typing import Annotated, Generic, TypeVar

from litestar.params import QueryParameter
from msgspec import Struct

Item = TypeVar("Item")

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
Limit = Annotated[
    int, QueryParameter(ge=1, le=MAX_LIMIT, description="The maximum number of items on a page.")
]
Cursor = Annotated[str, QueryParameter(description="The `next_cursor` of the previous page.")]


class Page(Struct, Generic[Item], frozen=True):
    """`next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: str | None
