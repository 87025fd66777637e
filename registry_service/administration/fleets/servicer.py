"""gRPC: fleets."""

import asyncio
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import fleets_pb2 as pb
from mooring.registry.v1 import fleets_pb2_grpc

from chassis import isolation, pages
from chassis.database_failures import retried
from chassis.errors import InvalidInput
from chassis.searching import start_of
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import check_identifier, check_text
from registry_service.administration.fleets.removal_store import BELONGINGS, FleetRemovalStore, Key
from registry_service.administration.fleets.store import FleetStore

MAX_ALLOWED_BROKERS = 1_000
# The part of the caller's time that is kept for the last chunk and for counting the rest.
RESERVE_S = 4.0


class FleetServicer(fleets_pb2_grpc.FleetServiceServicer):
    """A fleet's rule takes effect at the next resolution."""

    def __init__(self, store: FleetStore, removals: FleetRemovalStore) -> None:
        """`store` holds the fleets, and `removals` deletes them."""
        self._store = store
        self._removals = removals

    @allows(Access.OPERATOR)
    async def CreateFleet(
        self, request: pb.CreateFleetRequest, context: Context
    ) -> pb.CreateFleetResponse:
        """Raises `InvalidInput`, `FleetIdTaken`, `UuidPrefixTaken`, `BrokerUnknown`,
        `BrokerNotAllowed`, `PoolUnknown`.
        """
        check_identifier("id", request.id)
        fields = request.fields
        values = _named(fields, [field.name for field, _ in fields.ListFields()])
        allowed_ids = values.pop("allowed_ids", None)
        row = await self._store.create(
            {"name": request.id, **values, "id": request.id}, allowed_ids
        )
        return pb.CreateFleetResponse(fleet=fleet_proto(row))

    @allows(WithinFleets(Access.VIEWER))
    async def GetFleet(self, request: pb.GetFleetRequest, context: Context) -> pb.GetFleetResponse:
        """Raises `FleetNotFound`."""
        row = await self._store.fleet(request.id, isolation.fleets.get())
        return pb.GetFleetResponse(fleet=await self._whole(row))

    @allows(WithinFleets(Access.VIEWER))
    async def ListFleets(
        self, request: pb.ListFleetsRequest, context: Context
    ) -> pb.ListFleetsResponse:
        """Lists fleets in the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        start = start_of(request.search, request.cursor, str)
        rows = await self._store.fleets_from(
            start,
            size + 1,
            isolation.fleets.get(),
            has_rollout=request.has_rollout if request.HasField("has_rollout") else None,
        )
        page, next_cursor = pages.cut(rows, size, lambda row: start.place_of(row.rank, row.id))
        return pb.ListFleetsResponse(fleets=map(fleet_proto, page), next_cursor=next_cursor)

    @allows(WithinFleets(Access.OPERATOR))
    async def UpdateFleet(
        self, request: pb.UpdateFleetRequest, context: Context
    ) -> pb.UpdateFleetResponse:
        """Raises `InvalidInput`, `FleetNotFound`, `UuidPrefixTaken`, `BrokerUnknown`,
        `BrokerNotAllowed`, `PoolUnknown`, `LostRace`; `Forbidden` if an actor that is restricted to
        fleets would change the restriction. After it has returned, no device is created in a fleet
        that it has disabled.
        """
        within = isolation.fleets.get()
        values = _named(request.fields, request.update_mask.paths)
        row = await self._store.update(request.id, values, within, request.if_revision)
        return pb.UpdateFleetResponse(fleet=await self._whole(row))

    @allows(Access.OPERATOR)
    async def DeleteFleet(
        self, request: pb.DeleteFleetRequest, context: Context
    ) -> pb.DeleteFleetResponse:
        """Raises `FleetNotFound`, `LostRace`, `FleetInUse`; the latter also if time ran out."""
        if_revision: Collection[int] = request.if_revision
        if request.with_devices:
            # Disabling the fleet ends all access at once; deleting may take longer.
            disable = partial(
                self._store.update, request.id, {"is_active": False}, None, if_revision
            )
            disabled = await retried(disable)
            if if_revision:
                # A person who enables the fleet again keeps it.
                if_revision = [disabled.revision]
            await self._empty(request.id, deadline_of(context) - RESERVE_S)
        await self._removals.delete(request.id, if_revision)
        return pb.DeleteFleetResponse()

    async def _whole(self, row: sa.Row[Any]) -> pb.Fleet:
        """The fleet, with the number of its devices whose uuids lack its present prefix."""
        fleet = fleet_proto(row)
        if row.uuid_prefix is not None:
            fleet.devices_outside_prefix = await self._store.outside_prefix(row.id)
        return fleet

    async def _empty(self, fleet_id: str, ends: float) -> None:
        """Deletes the fleet's devices and keys, until the event loop's clock reads `ends`."""
        for which in BELONGINGS:
            after: Key | None = None
            while True:
                chunk = partial(self._removals.delete_chunk, fleet_id, which, after)
                after = await retried(chunk)
                if after is None:
                    break
                if asyncio.get_running_loop().time() > ends:
                    return


def _named(fields: pb.FleetFields, names: Iterable[str]) -> dict[str, Any]:
    """The named fields as columns; a named field that is not set is cleared."""
    values: dict[str, Any] = {}
    for name in names:
        match name:
            case "name":
                check_text("name", fields.name, shortest=1, longest=255)
                values["name"] = fields.name
            case "mqtt_broker_id" | "pool_id":
                values[name] = getattr(fields, name) if fields.HasField(name) else None
            case "allowed_brokers":
                is_set = fields.HasField("allowed_brokers")
                values["allowed_ids"] = list(fields.allowed_brokers.broker_ids) if is_set else None
                if len(fields.allowed_brokers.broker_ids) > MAX_ALLOWED_BROKERS:
                    raise InvalidInput(f"at most {MAX_ALLOWED_BROKERS}", field="allowed_broker_ids")
            case "is_active":
                if not fields.HasField("is_active"):
                    raise InvalidInput("must be true or false", field="is_active")
                values["is_active"] = fields.is_active
            case "uuid_prefix":
                values["uuid_prefix"] = None
                if fields.HasField("uuid_prefix"):
                    check_identifier("uuid_prefix", fields.uuid_prefix)
                    values["uuid_prefix"] = fields.uuid_prefix
            case _:
                raise InvalidInput("names an unknown field of a fleet", field="update_mask")
    return values


def rollout_proto(row: sa.Row[Any]) -> pb.Rollout | None:
    """The rollout of the fleet that is in progress."""
    if row.rollout_broker_id is None:
        return None
    return pb.Rollout(
        broker_id=row.rollout_broker_id,
        percent=row.rollout_percent,
        salt=row.rollout_salt,
        began_at=timestamp_of(row.rollout_began_at),
    )


def fleet_proto(row: sa.Row[Any]) -> pb.Fleet:
    """A fleet from the store as a message."""
    allowed = pb.AllowedBrokers(broker_ids=row.allowed_ids) if row.is_restricted else None
    return pb.Fleet(
        id=row.id,
        fields=pb.FleetFields(
            name=row.name,
            mqtt_broker_id=row.mqtt_broker_id,
            allowed_brokers=allowed,
            is_active=row.is_active,
            uuid_prefix=row.uuid_prefix,
            pool_id=row.pool_id,
        ),
        created_at=timestamp_of(row.created_at),
        updated_at=timestamp_of(row.updated_at),
        rollout=rollout_proto(row),
        revision=row.revision,
    )
