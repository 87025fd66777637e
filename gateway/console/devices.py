"""The devices: a list with search as a person types, conditions with counts, and a selection."""

import asyncio
from typing import Annotated, Any

from litestar import Response, Router, get
from litestar.params import QueryParameter

from chassis.trust import Access, WithinFleets
from gateway.administration import expected_devices, imports, jobs
from gateway.administration.device_lists import WANTED, Wanted, count_devices, list_devices
from gateway.administration.listing import Cursor
from gateway.console.broker_names import broker_names
from gateway.console.changes import own_address
from gateway.console.device_conditions import BROKERS, LABELS, STATES, Conditions
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, visitor_of

ON_A_PAGE = 50
FACETS = ["fleet_id", "device_type", "region", "told_broker_id", "mqtt_broker_id"]
# The values of a facet that are shown; the others are found by their names in the address.
VALUES_SHOWN = 8


@get("/", access=WithinFleets(Access.VIEWER), dependencies=WANTED)
async def device_list(
    request: ConsoleRequest,
    wanted: Wanted,
    cursor: Cursor = "",
    deleted: Annotated[str, QueryParameter(max_length=255)] = "",
) -> Response[bytes]:
    """The devices that match the conditions in the address, which are those of the JSON route."""
    visitor = visitor_of(request)
    listed, counted, names = await asyncio.gather(
        list_devices.fn(request, wanted, limit=ON_A_PAGE, cursor=cursor),
        count_devices.fn(request, wanted, facets=FACETS),
        broker_names(request),
    )
    conditions = Conditions.of(request.query_params.multi_items())
    return page(
        request,
        "devices.html",
        devices=listed.items,
        next_query=_next(conditions, listed.next_cursor),
        count=counted,
        facets=[_facet(name, counted.facets[name], names, conditions) for name in FACETS],
        states=[_state(name, conditions) for name in STATES],
        conditions=conditions,
        chips=conditions.chips(names),
        search=next((value for name, value in conditions.pairs if name == "search"), ""),
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


def _facet(name: str, facet: Any, brokers: Any, conditions: Conditions) -> dict[str, Any]:
    """The values of a field, each with the queries that take only it, and all but it."""
    is_broker = name in BROKERS
    values = []
    for found in facet.values[:VALUES_SHOWN]:
        value = (found.value or 0) if is_broker else found.value
        values.append(
            {
                "text": brokers.of(found.value) if is_broker else found.value or "none",
                "count": found.count,
                "is_capped": found.is_capped,
                "is_chosen": conditions.has(name, value),
                "only": conditions.plus(name, value),
                "but": conditions.plus(f"not_{name}", value),
                "all": conditions.minus(name, value),
            }
        )
    return {
        "label": LABELS[name],
        "values": values,
        "is_cut": facet.is_truncated or len(facet.values) > VALUES_SHOWN,
    }


def _state(name: str, conditions: Conditions) -> list[dict[str, Any]]:
    """The two values of a condition that a device fulfils or not."""
    return [
        {
            "text": text,
            "is_chosen": conditions.has(name, value),
            "query": conditions.minus(name, value)
            if conditions.has(name, value)
            else conditions.plus(name, value),
        }
        for text, value in zip(STATES[name], (True, False), strict=True)
    ]


ROUTES = Router("/devices", route_handlers=[device_list])
