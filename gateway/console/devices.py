"""The devices: a list with search as a person types, conditions, and a selection."""

from typing import Annotated

from litestar import Response, Router, get
from litestar.params import QueryParameter

from chassis.trust import Access, WithinFleets
from gateway.administration import expected_devices, imports, jobs
from gateway.administration.device_lists import WANTED, Wanted, list_devices
from gateway.administration.listing import Cursor
from gateway.console.broker_names import names_of
from gateway.console.changes import own_address
from gateway.console.device_conditions import Conditions
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, visitor_of

ON_A_PAGE = 50


@get("/", access=WithinFleets(Access.VIEWER), dependencies=WANTED)
async def device_list(
    request: ConsoleRequest,
    wanted: Wanted,
    cursor: Cursor = "",
    deleted: Annotated[str, QueryParameter(max_length=255)] = "",
) -> Response[bytes]:
    """The devices that match the conditions in the address, which are those of the JSON route.

    How many match is known at once where one page shows them all; else it is asked for later.
    """
    visitor = visitor_of(request)
    listed = await list_devices.fn(request, wanted, limit=ON_A_PAGE, cursor=cursor)
    conditions = Conditions.of(request.query_params.multi_items())
    shown = [
        broker_id
        for device in listed.items
        for broker_id in (device.mqtt_broker_id, *device.told_broker_ids[:1])
    ]
    names = await names_of(request, [*shown, *conditions.broker_ids])
    is_whole = not cursor and listed.next_cursor is None
    return page(
        request,
        "devices.html",
        devices=listed.items,
        next_query=_next(conditions, listed.next_cursor),
        count=len(listed.items) if is_whole else None,
        is_capped=False,
        conditions=conditions,
        chips=conditions.chips(names),
        search=conditions.search,
        brokers=names,
        address=own_address(request),
        deleted=deleted,
        may_create_jobs=visitor.may(jobs.create_job),
        may_import=visitor.may(imports.import_devices),
        may_list_expected=visitor.may(expected_devices.list_expected_devices),
    )


def _next(conditions: Conditions, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    return Conditions((*conditions.pairs, ("cursor", cursor))).query


ROUTES = Router("/devices", route_handlers=[device_list])
