"""gRPC: devices, for administrators."""

import asyncio
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import devices_pb2 as pb
from mooring.registry.v1 import devices_pb2_grpc

from chassis import isolation, pages
from chassis.errors import InvalidInput, MooringError, to_item
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import IDENTIFIER, check_identifier
from registry_service.administration.devices.cursors import Cursors
from registry_service.administration.devices.import_store import ImportStore
from registry_service.administration.devices.importing import ImportedDevice, read_imported
from registry_service.administration.devices.revision import revision_of
from registry_service.administration.devices.search_store import SearchStore
from registry_service.administration.devices.store import DeviceStore
from registry_service.attributes import TEXTS, check_attribute, place_of
from registry_service.device_filter import conditions_of
from registry_service.errors import DeviceNotFound

MAX_IMPORTED = 5_000
# Conditions of lists that requests of earlier gateways have beside the filter.
BESIDE = ("fleet_id", "credential_key_id", "short_api_key")
FACETS = {
    number: name.removeprefix("DEVICE_FACET_").lower()
    for name, number in pb.DeviceFacet.items()
    if number
}
# The attributes that administrators may change, and those that they see.
CHANGED = tuple(name for name in TEXTS if name in pb.DeviceFields.DESCRIPTOR.fields_by_name)
SHOWN = tuple(name for name in TEXTS if name in pb.Device.DESCRIPTOR.fields_by_name)
_changed_of = attrgetter(*CHANGED)
_shown_of = attrgetter(*SHOWN)


class DeviceServicer(devices_pb2_grpc.DeviceServiceServicer):
    """A changed pin takes effect at the next resolution."""

    def __init__(
        self,
        store: DeviceStore,
        search: SearchStore,
        cursors: Cursors,
        imports: ImportStore,
        note_revoked: Callable[[str], None],
    ) -> None:
        """`store` holds the devices, `search` finds them, `cursors` makes the cursors of lists, and
        `imports` imports devices. `note_revoked` is called with the uuid of a device whose password
        was ended.
        """
        self._note_revoked = note_revoked
        self._store = store
        self._search = search
        self._cursors = cursors
        self._imports = imports

    @allows(WithinFleets(Access.VIEWER))
    async def GetDevice(
        self, request: pb.GetDeviceRequest, context: Context
    ) -> pb.GetDeviceResponse:
        """Raises `DeviceNotFound`."""
        row = await self._store.device(_existing(request.uuid), isolation.fleets.get())
        return pb.GetDeviceResponse(device=_proto(row))

    @allows(WithinFleets(Access.VIEWER))
    async def ListDevices(
        self, request: pb.ListDevicesRequest, context: Context
    ) -> pb.ListDevicesResponse:
        """Lists devices in the order of the filter (`orders`). Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        conditions = conditions_of(request.filter)
        if request.fleet_id:
            check_identifier("fleet_id", request.fleet_id)
        for field, value in request.ListFields():
            if field.name in BESIDE and conditions.setdefault(field.name, value) != value:
                return pb.ListDevicesResponse()  # No device has two values.
        within = isolation.fleets.get()
        begin = self._cursors.read(conditions, request.cursor, within)
        page = await self._search.page(conditions, begin, size, within)
        answer = pb.ListDevicesResponse(devices=map(_proto, page.rows))
        if page.following is not None:
            answer.next_cursor = self._cursors.made(conditions, page.following, within)
        return answer

    @allows(WithinFleets(Access.VIEWER))
    async def CountDevices(
        self, request: pb.CountDevicesRequest, context: Context
    ) -> pb.CountDevicesResponse:
        """Raises `InvalidInput`."""
        conditions = conditions_of(request.filter)
        if len(set(request.facets)) < len(request.facets):
            raise InvalidInput("must name each field once", field="facets")
        if not FACETS.keys() >= set(request.facets):
            raise InvalidInput(f"must be of {', '.join(FACETS.values())}", field="facets")
        within = isolation.fleets.get()
        counted, facets = await asyncio.gather(
            self._search.count(conditions, within),
            self._search.facets([FACETS[facet] for facet in request.facets], conditions, within),
        )
        answer = pb.CountDevicesResponse(count=counted.devices, is_capped=counted.is_capped)
        for facet, found in zip(request.facets, facets, strict=True):
            values = (
                pb.FacetValue(value=str(value), count=count.devices, is_capped=count.is_capped)
                for value, count in found.values
            )
            answer.facets.add(facet=facet, values=values, is_truncated=found.is_truncated)
        return answer

    @allows(WithinFleets(Access.OPERATOR))
    async def UpdateDevice(
        self, request: pb.UpdateDeviceRequest, context: Context
    ) -> pb.UpdateDeviceResponse:
        """Raises `InvalidInput`, `DeviceNotFound`, `BrokerUnknown`, `BrokerNotAllowed`,
        `PoolUnknown`, `LostRace`.
        """
        uuid, within = _existing(request.uuid), isolation.fleets.get()
        columns = _named(request.fields, request.update_mask.paths)
        if columns or request.if_revision:
            row = await self._store.update(uuid, columns, within, request.if_revision)
        else:
            row = await self._store.device(uuid, within)
        return pb.UpdateDeviceResponse(device=_proto(row))

    @allows(WithinFleets(Access.OPERATOR))
    async def DeleteDevice(
        self, request: pb.DeleteDeviceRequest, context: Context
    ) -> pb.DeleteDeviceResponse:
        """Raises `DeviceNotFound`, `LostRace`."""
        uuid, within = _existing(request.uuid), isolation.fleets.get()
        await self._store.delete(uuid, within, request.if_revision)
        return pb.DeleteDeviceResponse()

    @allows(WithinFleets(Access.OPERATOR))
    async def RevokeCredentials(
        self, request: pb.RevokeCredentialsRequest, context: Context
    ) -> pb.RevokeCredentialsResponse:
        """Raises `DeviceNotFound`."""
        await self._store.end_password(_existing(request.uuid), isolation.fleets.get())
        self._note_revoked(request.uuid)
        return pb.RevokeCredentialsResponse()

    @allows(Access.OPERATOR)
    async def ImportDevices(
        self, request: pb.ImportDevicesRequest, context: Context
    ) -> pb.ImportDevicesResponse:
        """Raises `InvalidInput` for too many devices, and `LostRace`: then nothing is stored."""
        if len(request.devices) > MAX_IMPORTED:
            raise InvalidInput(f"at most {MAX_IMPORTED} at once", field="devices")
        # In a thread, because each hash is verified once, at the lowest cost of its kind.
        read = await asyncio.to_thread(lambda: [*map(_imported, request.devices)])
        wellformed = [device for device in read if isinstance(device, ImportedDevice)]
        outcomes = iter(await self._imports.import_devices(wellformed, is_dry_run=request.dry_run))
        response = pb.ImportDevicesResponse()
        for device in read:
            outcome = device if isinstance(device, MooringError) else next(outcomes)
            if isinstance(outcome, MooringError):
                response.results.add(error=to_item(outcome))
            else:
                response.results.add(created=outcome)
        return response


def _imported(message: pb.ImportedDevice) -> ImportedDevice | MooringError:
    try:
        return read_imported(message)
    except MooringError as error:
        return error


def _existing(uuid: str) -> str:
    """The uuid. Raises `DeviceNotFound`, without a query, if no device can have it."""
    if not IDENTIFIER.fullmatch(uuid):
        raise DeviceNotFound("there is no such device")
    return uuid


def _named(fields: pb.DeviceFields, names: Iterable[str]) -> dict[str, Any]:
    """The named fields as columns; a pin, pool, region or location that is not set is cleared."""
    columns: dict[str, Any] = {}
    for name in names:
        match name:
            case _ if name in CHANGED:
                columns[name] = getattr(fields, name)
                check_attribute(name, columns[name])
            case "mqtt_broker_id" | "pool_id":
                columns[name] = getattr(fields, name) if fields.HasField(name) else None
            case "is_active" | "reprovisioning_allowed":
                if not fields.HasField(name):
                    raise InvalidInput("must be true or false", field=name)
                columns[name] = getattr(fields, name)
            case "location":
                latitude, longitude = place_of(fields)
                columns |= {"latitude": latitude, "longitude": longitude}
            case _:
                raise InvalidInput("names an unknown field of a device", field="update_mask")
    return columns


def _proto(row: sa.Row[Any]) -> pb.Device:
    location = None
    if row.latitude is not None:
        location = resolution_pb2.Location(latitude=row.latitude, longitude=row.longitude)
    return pb.Device(
        id=row.id,
        uuid=row.uuid,
        fields=pb.DeviceFields(
            **dict(zip(CHANGED, _changed_of(row), strict=True)),
            mqtt_broker_id=row.mqtt_broker_id,
            pool_id=row.pool_id,
            is_active=row.is_active,
            location=location,
            reprovisioning_allowed=row.reprovisioning_allowed,
        ),
        fleet_id=row.fleet_id,
        mqtt_username=row.mqtt_username,
        **dict(zip(SHOWN, _shown_of(row), strict=True)),
        is_online=row.is_online,
        last_seen_at=timestamp_of(row.last_seen_at),
        provisioned_at=timestamp_of(row.provisioned_at),
        provisioned_by_key_id=str(row.provisioned_by_key_id or ""),
        told_broker_ids=row.told_broker_ids,
        told_at=timestamp_of(row.told_at),
        created_at=timestamp_of(row.created_at),
        updated_at=timestamp_of(row.updated_at),
        has_short_api_key=row.has_short_api_key,
        revision=revision_of(row),
        home_broker_id=row.home_broker_id or 0,
    )
