"""gRPC: expected devices."""

from typing import Any

import sqlalchemy as sa
from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import expected_devices_pb2 as pb
from mooring.registry.v1 import expected_devices_pb2_grpc

from chassis import isolation, pages
from chassis.errors import InvalidInput, MooringError, to_item
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import IDENTIFIER, check_identifier, check_text
from registry_service.administration.expected_devices.store import ExpectedDeviceStore
from registry_service.attributes import EXPECTED, TEXTS, check_attribute, place_of
from registry_service.errors import ExpectedDeviceNotFound

MAX_ITEMS = 10_000
MAX_PREFIX = 255
# The texts that an operator may set for a device.
NAMED = tuple(name for name in TEXTS if name in EXPECTED)


class ExpectedDeviceServicer(expected_devices_pb2_grpc.ExpectedDeviceServiceServicer):
    """After a change has returned, all registrations follow it."""

    def __init__(self, store: ExpectedDeviceStore) -> None:
        """`store` holds the expected devices."""
        self._store = store

    @allows(WithinFleets(Access.OPERATOR))
    async def CreateExpectedDevices(
        self, request: pb.CreateExpectedDevicesRequest, context: Context
    ) -> pb.CreateExpectedDevicesResponse:
        """Raises `InvalidInput`, which names the item; then nothing is stored."""
        given = request.expected_devices
        if not 1 <= len(given) <= MAX_ITEMS:
            raise InvalidInput(f"1 to {MAX_ITEMS} at once", field="expected_devices")
        rows = [_row(index, item) for index, item in enumerate(given)]
        response = pb.CreateExpectedDevicesResponse()
        outcomes = await self._store.create(rows, isolation.fleets.get())
        for index, outcome in sorted(outcomes.items()):
            if isinstance(outcome, MooringError):
                response.refused.add(index=index, error=to_item(outcome))
                continue
            response.created += 1
            if len(given) == 1:
                response.expected_device.CopyFrom(given[index])
                response.expected_device.created_at.FromDatetime(outcome)
                response.expected_device.ClearField("registered_at")
        return response

    @allows(WithinFleets(Access.VIEWER))
    async def GetExpectedDevice(
        self, request: pb.GetExpectedDeviceRequest, context: Context
    ) -> pb.GetExpectedDeviceResponse:
        """Raises `ExpectedDeviceNotFound`."""
        row = await self._store.expected_device(_existing(request.uuid), isolation.fleets.get())
        return pb.GetExpectedDeviceResponse(expected_device=_proto(row))

    @allows(WithinFleets(Access.VIEWER))
    async def ListExpectedDevices(
        self, request: pb.ListExpectedDevicesRequest, context: Context
    ) -> pb.ListExpectedDevicesResponse:
        """Lists expected devices in the order of their uuids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        if request.fleet_id:
            check_identifier("fleet_id", request.fleet_id)
        check_text("uuid_prefix", request.uuid_prefix, longest=MAX_PREFIX)
        rows = await self._store.expected_devices_after(
            pages.after(request.cursor, str),
            size + 1,
            isolation.fleets.get(),
            fleet_id=request.fleet_id or None,
            registered=request.registered if request.HasField("registered") else None,
            uuid_prefix=request.uuid_prefix,
        )
        page, next_cursor = pages.cut(rows, size, lambda row: row.uuid)
        return pb.ListExpectedDevicesResponse(
            expected_devices=map(_proto, page), next_cursor=next_cursor
        )

    @allows(WithinFleets(Access.OPERATOR))
    async def DeleteExpectedDevice(
        self, request: pb.DeleteExpectedDeviceRequest, context: Context
    ) -> pb.DeleteExpectedDeviceResponse:
        """Raises `ExpectedDeviceNotFound`."""
        await self._store.delete(_existing(request.uuid), isolation.fleets.get())
        return pb.DeleteExpectedDeviceResponse()


def _existing(uuid: str) -> str:
    """The uuid. Raises `ExpectedDeviceNotFound`, without a query, if no device can have it."""
    if not IDENTIFIER.fullmatch(uuid):
        raise ExpectedDeviceNotFound("no such device is expected")
    return uuid


def _row(index: int, item: pb.ExpectedDevice) -> dict[str, Any]:
    """The columns of the item, and its index in the request."""
    where = f"expected_devices[{index}]."
    check_identifier(f"{where}uuid", item.uuid)
    check_identifier(f"{where}fleet_id", item.fleet_id)
    fields: Any = item  # the type stub accepts literal names only
    row: dict[str, Any] = {"index": index, "uuid": item.uuid, "fleet_id": item.fleet_id}
    for name in NAMED:
        if fields.HasField(name):
            row[name] = getattr(item, name)
            check_attribute(name, row[name], where)
    if item.HasField("mqtt_broker_id"):
        row["mqtt_broker_id"] = item.mqtt_broker_id
    if item.HasField("location"):
        latitude, longitude = place_of(item, f"{where}location.")
        row |= {"latitude": latitude, "longitude": longitude}
    return row


def _proto(row: sa.Row[Any]) -> pb.ExpectedDevice:
    location = None
    if row.latitude is not None:
        location = resolution_pb2.Location(latitude=row.latitude, longitude=row.longitude)
    return pb.ExpectedDevice(
        uuid=row.uuid,
        fleet_id=row.fleet_id,
        **{name: getattr(row, name) for name in NAMED},
        mqtt_broker_id=row.mqtt_broker_id,
        location=location,
        created_at=timestamp_of(row.created_at),
        registered_at=timestamp_of(row.registered_at),
    )
