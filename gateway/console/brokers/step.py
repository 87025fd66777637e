"""Whether a broker that Mooring manages holds the clients that it should hold."""

import asyncio

from litestar import Response, get

from chassis.trust import Access
from gateway.administration import enforcement
from gateway.administration.fields import PathId
from gateway.console.brokers.shell import broker_of, broker_page
from gateway.console.visitor import ConsoleRequest


@get("/{broker_id:int}/in-step", access=Access.VIEWER)
async def in_step(request: ConsoleRequest, broker_id: PathId) -> Response[bytes]:
    """What the reconciler last found at the broker."""
    broker, found = await asyncio.gather(
        broker_of(request, broker_id), enforcement.get_enforcement.fn(request, broker_id)
    )
    return broker_page(request, "broker_in_step.html", broker, enforcement=found)
