"""How many devices use which brokers: `/api/v1/device-counts`, and below a broker."""

from typing import Annotated, Any, ClassVar, Literal

from litestar import Router, get
from litestar.params import QueryParameter
from mooring.broker.v1 import device_counts_pb2 as pb
from msgspec import Meta, Struct

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import Id, PathId
from gateway.administration.fleets import FleetId
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page

ORDERS = {
    "id": pb.DEVICE_COUNT_ORDER_UNSPECIFIED,
    "told": pb.DEVICE_COUNT_ORDER_TOLD,
}


class AssignedDevices(Struct, kw_only=True, frozen=True):
    """Devices by the step that names the broker, whether the broker is active or not."""

    device: Annotated[int, Meta(description="Devices that are pinned to it.")]
    fleet: Annotated[int, Meta(description="Devices without a pin in fleets whose broker it is.")]
    default: Annotated[
        int,
        Meta(
            description="If it is the default: devices without a pin in fleets without a broker "
            "and a pool."
        ),
    ]


class ToldDevices(Struct, kw_only=True, frozen=True):
    """Devices by the step that decided the last answer that named the broker."""

    device: int
    rollout: int
    fleet: int
    region: int
    default_pool: int
    default: int
    unknown: Annotated[
        int, Meta(description="Devices whose last answer is older than the recording of steps.")
    ]


class ReportedDevices(Struct, kw_only=True, frozen=True):
    """What devices reported lately. Not every device reports."""

    connected: Annotated[
        int,
        Meta(description="That reached it within two hours, and have not failed since."),
    ]
    failing: Annotated[
        int,
        Meta(description="That failed within five minutes, and have not reached it since."),
    ]
    failing_fleets: Annotated[int, Meta(description="The fleets of the failing devices.")]


class DeviceCounts(Struct, kw_only=True, frozen=True):
    """How many active devices use a broker."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "broker_id": 1,
        "name": "Local Broker",
        "assigned": {"device": 0, "fleet": 0, "default": 1},
        "told": {
            "device": 0,
            "rollout": 0,
            "fleet": 0,
            "region": 0,
            "default_pool": 0,
            "default": 1,
            "unknown": 0,
        },
        "is_active": True,
        "is_default": True,
        "reported": {"connected": 1, "failing": 0, "failing_fleets": 0},
    }

    broker_id: int
    name: str
    assigned: AssignedDevices
    told: ToldDevices
    is_active: bool
    is_default: bool
    reported: Annotated[
        ReportedDevices | None,
        Meta(description="What devices say themselves; null in a list of brokers."),
    ]


class DeviceCountPage(Page[DeviceCounts], frozen=True):
    """The counts of brokers."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "items": [{**DeviceCounts.EXAMPLE, "reported": None}],
        "next_cursor": None,
        "devices": 1,
    }

    devices: Annotated[int, Meta(description="All active devices, those without a broker too.")]


class ToldBroker(Struct, kw_only=True, frozen=True):
    """Devices whose last answer named a broker."""

    mqtt_broker_id: Annotated[
        int | None, Meta(description="Null: the last answer named none, or there was none.")
    ]
    devices: int


class FleetDeviceCounts(Struct, kw_only=True, frozen=True):
    """The active devices of a fleet that have no pin, by the broker of their last answer."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "devices": 1,
        "told": [{"mqtt_broker_id": 1, "devices": 1}],
    }

    devices: Annotated[int, Meta(description="Active devices that have no pin.")]
    told: Annotated[
        list[ToldBroker],
        Meta(description="The same devices by their brokers, in the order of the brokers' ids."),
    ]


def _json(counts: pb.DeviceCounts) -> DeviceCounts:
    assigned, told = counts.assigned, counts.told
    return DeviceCounts(
        broker_id=counts.broker_id,
        name=counts.name,
        assigned=AssignedDevices(
            device=assigned.device, fleet=assigned.fleet, default=assigned.default
        ),
        told=ToldDevices(
            device=told.device,
            rollout=told.rollout,
            fleet=told.fleet,
            region=told.region,
            default_pool=told.default_pool,
            default=told.default,
            unknown=told.unknown,
        ),
        is_active=counts.is_active,
        is_default=counts.is_default,
        reported=ReportedDevices(
            connected=counts.reported.connected,
            failing=counts.reported.failing,
            failing_fleets=counts.reported.failing_fleets,
        )
        if counts.HasField("reported")
        else None,
    )


@get(
    "/brokers/{broker_id:int}/device-counts",
    access=Access.VIEWER,
    summary="Count the devices that use a broker",
    description="Counts the active devices that are assigned to the broker, and those that were "
    "notified of it in their last answer; these counts are always exact. `reported` counts those "
    "that say that they reach it, or that they do not.",
    reasons=("BROKER_NOT_FOUND",),
)
async def get_device_counts(request: CallerRequest, broker_id: PathId) -> DeviceCounts:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.device_counts.GetDeviceCounts,
        pb.GetDeviceCountsRequest(broker_id=broker_id),
    )
    return _json(answer.counts)


@get(
    "/device-counts",
    access=Access.VIEWER,
    summary="Count the devices that use each broker",
)
async def list_device_counts(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    broker_id: Annotated[
        list[Id] | None,
        QueryParameter(description="Only these brokers, at most 500. May be repeated."),
    ] = None,
    order: Annotated[
        Literal["id", "told"],
        QueryParameter(
            description="told: the brokers of which most devices were notified come first."
        ),
    ] = "id",
) -> DeviceCountPage:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.device_counts.ListDeviceCounts,
        pb.ListDeviceCountsRequest(
            page_size=limit, cursor=cursor, broker_ids=broker_id or (), order=ORDERS[order]
        ),
    )
    return DeviceCountPage(
        [_json(counts) for counts in answer.counts], answer.next_cursor or None, answer.devices
    )


@get(
    "/fleets/{fleet_id:str}/device-counts",
    access=WithinFleets(Access.VIEWER),
    summary="Count the devices of a fleet by their broker",
    description="Counts the active devices that have no pin: a rollout moves these. The counts "
    "are always exact.",
    reasons=("FLEET_NOT_FOUND",),
)
async def get_fleet_device_counts(request: CallerRequest, fleet_id: FleetId) -> FleetDeviceCounts:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.device_counts.GetFleetDeviceCounts,
        pb.GetFleetDeviceCountsRequest(fleet_id=fleet_id),
    )
    return FleetDeviceCounts(
        devices=answer.devices,
        told=[
            ToldBroker(mqtt_broker_id=told.broker_id or None, devices=told.devices)
            for told in answer.told
        ],
    )


ROUTES = Router(
    "/",
    route_handlers=[get_device_counts, list_device_counts, get_fleet_device_counts],
    tags=["brokers"],
)
