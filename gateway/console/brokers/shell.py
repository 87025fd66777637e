"""What all pages of one broker share: its head, its tabs, and what the person may do with it."""

from typing import Any

from litestar import Response
from litestar.handlers import BaseRouteHandler
from msgspec import structs

from gateway.administration import (
    broker_history,
    broker_secrets,
    broker_users,
    brokers,
    device_counts,
    enforcement,
)
from gateway.administration.broker_types import Broker
from gateway.administration.device_counts import AssignedDevices, DeviceCounts, ToldDevices
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, visitor_of

# The name of a tab, its path below the broker's, and the JSON route that it shows.
TABS: tuple[tuple[str, str, BaseRouteHandler], ...] = (
    ("Settings", "", brokers.get_broker),
    ("Devices", "/devices", device_counts.get_device_counts),
    ("Access", "/access", broker_secrets.list_broker_secrets),
    ("In step", "/in-step", enforcement.get_enforcement),
    ("History", "/history", broker_history.list_broker_revisions),
)
# What a person may do with a broker, and the JSON route that does it.
ACTS: dict[str, BaseRouteHandler] = {
    "change": brokers.update_broker,
    "make_default": brokers.set_default_broker,
    "delete": brokers.delete_broker,
    "move": broker_users.move_broker_users,
    "make_secret": broker_secrets.create_broker_secret,
    "roll_back": broker_history.roll_back_broker,
}


def path_of(broker_id: int) -> str:
    """The path of a broker's first page."""
    return f"/console/brokers/{broker_id}"


async def broker_of(request: ConsoleRequest, broker_id: int) -> Broker:
    """The broker as it is now. Raises what the JSON route raises."""
    answer: Any = await brokers.get_broker.fn(request, broker_id)
    found: Broker = answer.content
    return found


async def counts_of(request: ConsoleRequest, broker_id: int) -> DeviceCounts | None:
    """How many devices use the broker; None if the person may not know."""
    if not visitor_of(request).may(device_counts.get_device_counts):
        return None
    found: DeviceCounts = await device_counts.get_device_counts.fn(request, broker_id)
    return found


def assigned_to(assigned: AssignedDevices) -> int:
    """How many devices are assigned to a broker, by any step."""
    return assigned.device + assigned.fleet + assigned.default


def notified_of(told: ToldDevices) -> int:
    """How many devices had a broker in their last answer, by any step."""
    counts: tuple[int, ...] = structs.astuple(told)
    return sum(counts)


def broker_page(
    request: ConsoleRequest,
    template: str,
    broker: Broker,
    *,
    status: int = 200,
    is_deleted: bool = False,
    **values: Any,
) -> Response[bytes]:
    """A page of a broker. A deleted broker has its history and nothing else."""
    visitor = visitor_of(request)
    root = path_of(broker.id)
    tabs = [
        (name, f"{root}{path}")
        for name, path, shows in TABS
        if visitor.may(shows) and (path == "/history" or not is_deleted)
    ]
    return page(
        request,
        template,
        status=status,
        broker=broker,
        is_deleted=is_deleted,
        root=root,
        tabs=tabs,
        may={name: visitor.may(route) for name, route in ACTS.items()},
        **values,
    )
