"""Lists, a page at a time."""

from typing import Annotated, Generic, TypeVar

from litestar.params import QueryParameter
from msgspec import Struct

Item = TypeVar("Item")

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
MAX_SEARCH = 255
Limit = Annotated[
    int, QueryParameter(ge=1, le=MAX_LIMIT, description="The maximum number of items on a page.")
]
Cursor = Annotated[str, QueryParameter(description="The `next_cursor` of the previous page.")]


def searched(what: str) -> QueryParameter:
    """The parameter for a text that rows are searched for; `what` says where, as a clause."""
    return QueryParameter(
        max_length=MAX_SEARCH,
        description=f"Only those {what}, in any case of letters. No character has a special"
        " meaning. Those that match best come first: equal, then those that begin with it. A cursor"
        " belongs to the search of its page.",
    )


class Page(Struct, Generic[Item], frozen=True):
    """`next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: str | None
