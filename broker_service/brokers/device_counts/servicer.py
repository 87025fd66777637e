"""gRPC: how many devices use which brokers."""

import re

from mooring.broker.v1 import device_counts_pb2 as pb
from mooring.broker.v1 import device_counts_pb2_grpc

from broker_service.brokers.device_counts.report_store import ReportStore
from broker_service.brokers.device_counts.store import DeviceCounts, DeviceCountStore
from broker_service.errors import FleetNotFound
from broker_service.settings import MAX_INT32
from chassis import isolation, pages
from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.servicers import allows
from chassis.trust import Access, WithinFleets
from chassis.validation import IDENTIFIER
from domain.reports import Reports

# Devices and the id of a broker, in a cursor.
PLACE = re.compile(r"(\d{1,19}) (\d{1,10})", re.ASCII)


class DeviceCountServicer(device_counts_pb2_grpc.DeviceCountServiceServicer):
    """Counts are as of the moment of the call."""

    def __init__(self, store: DeviceCountStore, reports: ReportStore) -> None:
        """Has no state."""
        self._store = store
        self._reports = reports

    @allows(Access.VIEWER)
    async def GetDeviceCounts(
        self, request: pb.GetDeviceCountsRequest, context: Context
    ) -> pb.GetDeviceCountsResponse:
        """Raises `BrokerNotFound`."""
        counts = _proto_of(await self._store.counts_of(request.broker_id))
        found = await self._reports.reports_of([request.broker_id])
        reports = found.get(request.broker_id, Reports())
        counts.reported.connected = reports.connected_devices
        counts.reported.failing = reports.failing_devices
        counts.reported.failing_fleets = reports.failing_fleets
        return pb.GetDeviceCountsResponse(counts=counts)

    @allows(Access.VIEWER)
    async def ListDeviceCounts(
        self, request: pb.ListDeviceCountsRequest, context: Context
    ) -> pb.ListDeviceCountsResponse:
        """Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        if len(request.broker_ids) > pages.MAX_PAGE_SIZE:
            raise InvalidInput(f"at most {pages.MAX_PAGE_SIZE} at once", field="broker_id")
        match request.order:
            case pb.DEVICE_COUNT_ORDER_UNSPECIFIED:
                after = pages.after(request.cursor, int, largest=MAX_INT32)
                found = await self._store.counts_after(after, size + 1, request.broker_ids)
                page, next_cursor = pages.cut(found, size, lambda counts: counts.broker_id)
            case pb.DEVICE_COUNT_ORDER_TOLD:
                last = _place_in(pages.after(request.cursor, str))
                found = await self._store.most_told_after(last, size + 1, request.broker_ids)
                page, next_cursor = pages.cut(found, size, _place_text)
            case _:
                raise InvalidInput("must be id or told", field="order")
        return pb.ListDeviceCountsResponse(
            counts=map(_proto_of, page),
            next_cursor=next_cursor,
            devices=await self._store.active_devices(),
        )

    @allows(WithinFleets(Access.VIEWER))
    async def GetFleetDeviceCounts(
        self, request: pb.GetFleetDeviceCountsRequest, context: Context
    ) -> pb.GetFleetDeviceCountsResponse:
        """Raises `FleetNotFound`."""
        if not IDENTIFIER.fullmatch(request.fleet_id):
            raise FleetNotFound("there is no such fleet")
        told = await self._store.counts_of_fleet(request.fleet_id, isolation.fleets.get())
        return pb.GetFleetDeviceCountsResponse(
            devices=sum(told.values()),
            told=[
                pb.ToldBroker(broker_id=broker_id, devices=devices)
                for broker_id, devices in sorted(told.items())
            ],
        )


def _place_text(counts: DeviceCounts) -> str:
    devices, broker_id = counts.place
    return f"{-devices} {broker_id}"


def _place_in(text: str | None) -> tuple[int, int] | None:
    """Reads what `_place_text` makes. Raises `InvalidInput`."""
    if text is None:
        return None
    found = PLACE.fullmatch(text)
    if found is None:
        raise InvalidInput("this cursor is invalid", field="cursor")
    return -int(found[1]), int(found[2])


def _proto_of(counts: DeviceCounts) -> pb.DeviceCounts:
    told = {source or "unknown": devices for source, devices in counts.told.items()}
    return pb.DeviceCounts(
        broker_id=counts.broker_id,
        name=counts.name,
        is_active=counts.is_active,
        is_default=counts.is_default,
        assigned=pb.AssignedDevices(**counts.assigned),
        told=pb.ToldDevices(**told),
    )
