"""How many devices match conditions, and how many have which values.

Counting takes longer than listing, so the list of devices asks for these pages after it is shown.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from litestar import Response, Router, get

from chassis.trust import Access, WithinFleets
from gateway.administration import jobs
from gateway.administration.device_lists import WANTED, Wanted, count_devices
from gateway.console.broker_names import BrokerNames, names_of
from gateway.console.device_conditions import BROKERS, LABELS, STATES, Conditions
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, visitor_of

FACETS = ["fleet_id", "device_type", "region", "told_broker_id", "mqtt_broker_id"]
# The values of a facet that are shown; the others are found by their names in the address.
VALUES_SHOWN = 8


@get("/device-count", access=WithinFleets(Access.VIEWER), dependencies=WANTED)
async def device_count(request: ConsoleRequest, wanted: Wanted) -> Response[bytes]:
    """How many devices match the conditions in the address."""
    conditions = Conditions.of(request.query_params.multi_items())
    counted, names = await asyncio.gather(
        count_devices.fn(request, wanted), names_of(request, conditions.broker_ids)
    )
    return _page(request, counted, names, conditions)


@get("/device-filters", access=WithinFleets(Access.VIEWER), dependencies=WANTED)
async def device_filters(request: ConsoleRequest, wanted: Wanted) -> Response[bytes]:
    """The conditions that can be added to those in the address, with counts."""
    conditions = Conditions.of(request.query_params.multi_items())
    counted = await count_devices.fn(request, wanted, facets=FACETS)
    shown = [
        found.value for name in BROKERS for found in counted.facets[name].values[:VALUES_SHOWN]
    ]
    names = await names_of(request, [*shown, *conditions.broker_ids])
    return _page(
        request,
        counted,
        names,
        conditions,
        facets=[_facet(name, counted.facets[name], names, conditions) for name in FACETS],
        states=[_state(name, conditions) for name in STATES],
    )


def _page(
    request: ConsoleRequest,
    counted: Any,
    names: BrokerNames,
    conditions: Conditions,
    facets: Sequence[Any] = (),
    states: Sequence[Any] = (),
) -> Response[bytes]:
    return page(
        request,
        "device_counts.html",
        count=counted.count,
        is_capped=counted.is_capped,
        conditions=conditions,
        chips=conditions.chips(names),
        search=conditions.search,
        may_create_jobs=visitor_of(request).may(jobs.create_job),
        facets=facets,
        states=states,
    )


def _facet(name: str, facet: Any, brokers: BrokerNames, conditions: Conditions) -> dict[str, Any]:
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


ROUTES = Router("/", route_handlers=[device_count, device_filters])
