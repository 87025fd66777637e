"""What a device reports about its brokers: `/api/v1/devices/{uuid}/reports`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Router, get
from mooring.registry.v1 import reports_pb2 as pb
from msgspec import Meta, Struct

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.devices import DeviceUuid
from gateway.administration.fields import moment_of
from gateway.examples import MOMENT


class DeviceReport(Struct, kw_only=True, frozen=True):
    """The last report of a device with this state."""

    state: Annotated[str, Meta(description="`connected` or `failed`.")]
    broker_id: Annotated[
        int | None,
        Meta(description="One of the brokers that the device was told; null for any other."),
    ]
    error: Annotated[str | None, Meta(description="Why it failed, in the words of the device.")]
    generation: Annotated[
        str | None, Meta(description="The `mqtt.generation` of the answer that the device used.")
    ]
    reported_at: datetime | None


class DeviceReports(Struct, kw_only=True, frozen=True):
    """The last reports of a device, the newest first. A device may report nothing."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "items": [
            {
                "state": "connected",
                "broker_id": 1,
                "error": None,
                "generation": "5c1f0a3b9d2e4f60",
                "reported_at": MOMENT,
            }
        ]
    }

    items: list[DeviceReport]


def _json(report: pb.DeviceReport) -> DeviceReport:
    return DeviceReport(
        state=report.state,
        broker_id=report.broker_id or None,
        error=report.error or None,
        generation=report.generation or None,
        reported_at=moment_of(report, "reported_at"),
    )


@get(
    "/devices/{uuid:str}/reports",
    access=WithinFleets(Access.VIEWER),
    summary="Show what a device reports about its brokers",
    description="The last time that it said that it had reached a broker, and the last time that "
    "it said that it had not.",
    reasons=("DEVICE_NOT_FOUND",),
)
async def get_device_reports(request: CallerRequest, uuid: DeviceUuid) -> DeviceReports:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.reports.GetDeviceReports, pb.GetDeviceReportsRequest(uuid=uuid)
    )
    return DeviceReports(items=[*map(_json, answer.reports)])


ROUTES = Router("/", route_handlers=[get_device_reports], tags=["devices"])
