"""The first page: what needs a person, and how things are."""

from typing import Any

from litestar import Response, get

from chassis.trust import Access, WithinFleets
from gateway.administration import brokers
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, visitor_of


@get("/", access=WithinFleets(Access.VIEWER))
async def overview(request: ConsoleRequest) -> Response[bytes]:
    """The overview."""
    may_list_brokers = visitor_of(request).may(brokers.list_brokers)
    listed: Any = await brokers.list_brokers.fn(request) if may_list_brokers else None
    return page(request, "overview.html", brokers=listed.items if listed else [])
