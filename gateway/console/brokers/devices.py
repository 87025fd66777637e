"""The devices of a broker: how many, and what assigns them to it."""

import asyncio

from litestar import Response, get

from chassis.trust import Access
from gateway.administration import broker_users, device_counts
from gateway.administration.fields import PathId
from gateway.console.brokers.shell import (
    assigned_to,
    broker_of,
    broker_page,
    notified_of,
)
from gateway.console.visitor import ConsoleRequest


@get("/{broker_id:int}/devices", access=Access.VIEWER)
async def broker_devices(request: ConsoleRequest, broker_id: PathId) -> Response[bytes]:
    """The counts of the devices that are assigned to the broker, and of those that use it."""
    broker, counts, usage = await asyncio.gather(
        broker_of(request, broker_id),
        device_counts.get_device_counts.fn(request, broker_id),
        broker_users.get_broker_usage.fn(request, broker_id),
    )
    return broker_page(
        request,
        "broker_devices.html",
        broker,
        counts=counts,
        assigned=assigned_to(counts.assigned),
        notified=notified_of(counts.told),
        usage=usage,
    )
