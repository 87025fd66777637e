"""The list of brokers, with their state and their share of the devices."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from litestar import Response, get
from litestar.params import FromQuery, QueryParameter

from chassis.trust import Access, WithinFleets
from gateway.administration import brokers, device_counts
from gateway.administration.broker_types import Broker
from gateway.administration.listing import Cursor
from gateway.console.brokers.shell import assigned_to
from gateway.console.changes import own_address
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, visitor_of

ON_A_PAGE = 50
# A filter that a form sends empty matches all. NO_REGION is for brokers without a region.
NO_REGION = "-"
CURL = (
    "curl -X POST {address}/api/v1/brokers -H 'Authorization: Bearer $TOKEN' "
    "-H 'Content-Type: application/json' "
    '-d \'{{"name": "Cloud", "protocol": "mqtts", "host": "mqtt.example.com", "port": 8883}}\''
)


async def devices_of(request: ConsoleRequest, listed: Sequence[Broker]) -> dict[int, int]:
    """How many devices are assigned to each broker; empty if the person may not know."""
    if not listed or not visitor_of(request).may(device_counts.list_device_counts):
        return {}
    counted: Any = await device_counts.list_device_counts.fn(
        request, limit=len(listed), broker_id=[broker.id for broker in listed]
    )
    return {counts.broker_id: assigned_to(counts.assigned) for counts in counted.items}


@get("/", access=WithinFleets(Access.VIEWER))
async def broker_list(
    request: ConsoleRequest,
    cursor: Cursor = "",
    name: Annotated[str, QueryParameter(max_length=255)] = "",
    active: FromQuery[Literal["", "true", "false"]] = "",
    protocol: FromQuery[Literal["", "mqtt", "mqtts", "ws", "wss"]] = "",
    region: Annotated[str, QueryParameter(max_length=64)] = "",
    label: Annotated[str, QueryParameter(max_length=400)] = "",
    deleted: FromQuery[int | None] = None,
) -> Response[bytes]:
    """A page of the brokers that match all filters. `deleted` is the id of a broker that the
    person has just deleted.
    """
    filters = {
        "name": name,
        "active": active,
        "protocol": protocol,
        "region": region,
        "label": label,
    }
    listed: Any = await brokers.list_brokers.fn(
        request,
        limit=ON_A_PAGE,
        cursor=cursor,
        is_active=None if active == "" else active == "true",
        protocol=protocol or None,
        region=None if region == "" else ("" if region == NO_REGION else region),
        label=[label] if label else None,
        name=name,
    )
    devices = await devices_of(request, listed.items)
    is_whole = not (cursor or listed.next_cursor or any(filters.values()))
    visitor = visitor_of(request)
    return page(
        request,
        "brokers.html",
        brokers=listed.items,
        filters=filters,
        next={**filters, "cursor": listed.next_cursor} if listed.next_cursor else None,
        devices=devices,
        most=max([*devices.values(), 1]),
        # A share is known if the page has all brokers.
        total=sum(devices.values()) if is_whole else 0,
        may_create=visitor.may(brokers.create_broker),
        deleted=deleted,
        curl=CURL.format(address=own_address(request)),
    )
