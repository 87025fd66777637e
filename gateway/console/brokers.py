"""The brokers: a list with their share of the devices."""

from typing import Annotated, Any

from litestar import Response, Router, get
from litestar.params import QueryParameter

from chassis.trust import Access, WithinFleets
from gateway.administration import brokers, device_counts
from gateway.administration.listing import Cursor
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, visitor_of

ON_A_PAGE = 50


@get("/", access=WithinFleets(Access.VIEWER))
async def broker_list(
    request: ConsoleRequest,
    cursor: Cursor = "",
    name: Annotated[str, QueryParameter(max_length=255)] = "",
) -> Response[bytes]:
    """A page of brokers, whose names contain `name`."""
    listed: Any = await brokers.list_brokers.fn(request, limit=ON_A_PAGE, cursor=cursor, name=name)
    devices: dict[int, int] = {}
    if visitor_of(request).may(device_counts.list_device_counts):
        # Both lists are in the order of the ids.
        counted: Any = await device_counts.list_device_counts.fn(
            request, limit=ON_A_PAGE, cursor=cursor
        )
        devices = {
            counts.broker_id: counts.assigned.device
            + counts.assigned.fleet
            + counts.assigned.default
            for counts in counted.items
        }
    return page(
        request,
        "brokers.html",
        brokers=listed.items,
        next_cursor=listed.next_cursor,
        name=name,
        devices=devices,
    )


ROUTES = Router("/brokers", route_handlers=[broker_list])
