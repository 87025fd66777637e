"""The page of the search. It asks the lists of the API at once, each for its best matches."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any

from litestar import Response, Router, get
from litestar.params import QueryParameter

from chassis.errors import DeadlineExceeded, NotFound, Overloaded, Unavailable
from chassis.trust import Access, WithinFleets
from gateway.access import required
from gateway.administration.listing import MAX_SEARCH, Cursor
from gateway.console.changes import own_address
from gateway.console.pages import page
from gateway.console.search import places
from gateway.console.search.hits import Hit, exact_first
from gateway.console.search.kinds import KINDS, Kind
from gateway.console.templates import link
from gateway.console.visitor import ConsoleRequest, visitor_of

HOME = "/console/search"
# Of each kind, beside the others; and of one kind on a page of its own.
AT_MOST = 6
ON_A_PAGE = 50
BY_NAME = {kind.name: kind for kind in KINDS}
# After these, another try may have an answer.
SILENT = (Unavailable, DeadlineExceeded, Overloaded)


@dataclass(frozen=True, slots=True)
class Group:
    """What was found of a kind."""

    heading: str
    icon: str
    hits: list[Hit] = field(default_factory=list)
    # Where all that match are; empty if these are all.
    all_at: str = ""
    next_cursor: str | None = None
    # The service that knows this kind does not answer.
    failure: Exception | None = None

    def has_exact(self, search: str) -> bool:
        """Whether one is named like what is searched for."""
        return any(hit.is_exact(search) for hit in self.hits)


@get("/", access=WithinFleets(Access.VIEWER))
async def search(
    request: ConsoleRequest,
    q: Annotated[str, QueryParameter(max_length=MAX_SEARCH)] = "",
    kind: Annotated[str, QueryParameter(max_length=64)] = "",
    cursor: Cursor = "",
) -> Response[bytes]:
    """What matches `q`, the best matches of each kind first. With `kind`, only that kind, a page at
    a time.
    """
    visitor, wanted = visitor_of(request), q.strip()
    kinds = [each for each in KINDS if visitor.may(each.lists)]
    if kind:
        alone = BY_NAME.get(kind)
        if alone is None:
            raise NotFound("there is no such kind")
        visitor.actor.require(required(alone.lists.opt["access"]))
        kinds = [alone]
    groups: list[Group] = []
    if wanted:
        limit = ON_A_PAGE if kind else AT_MOST
        groups = await asyncio.gather(
            *(_group(request, each, wanted, limit, cursor if kind else "") for each in kinds)
        )
        _require_an_answer(groups)
        if not kind:
            groups.append(Group("Pages", "grid", places.found(visitor, wanted)[:AT_MOST]))
    return page(
        request,
        "search.html",
        search=wanted,
        kind=BY_NAME[kind] if kind else None,
        groups=_sorted([group for group in groups if group.hits or group.failure], wanted),
        kinds=kinds,
        address=own_address(request),
    )


async def _group(
    request: ConsoleRequest, kind: Kind, search: str, limit: int, cursor: str
) -> Group:
    lists: Any = kind.lists
    try:
        listed = await lists.fn(request, limit=limit, cursor=cursor, **kind.arguments(search))
    except SILENT as error:
        return Group(kind.heading, kind.icon, failure=error)
    all_at = ""
    if listed.next_cursor:
        all_at = (
            link(kind.all_at, **{kind.parameter: search})
            if kind.all_at
            else link(HOME, q=search, kind=kind.name)
        )
    found = exact_first(map(kind.hit_of, listed.items), search)
    return Group(kind.heading, kind.icon, found, all_at, listed.next_cursor)


def _require_an_answer(groups: list[Group]) -> None:
    """Raises the failure of the first kind if all have failed."""
    failures = [group.failure for group in groups if group.failure]
    if failures and len(failures) == len(groups):
        raise failures[0]


def _sorted(groups: list[Group], search: str) -> list[Group]:
    """Groups with an exact hit come first."""
    return sorted(groups, key=lambda group: not group.has_exact(search))


ROUTES = Router("/search", route_handlers=[search])
