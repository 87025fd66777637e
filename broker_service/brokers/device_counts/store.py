"""Adds up counts of devices for brokers."""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.errors import BrokerNotFound, FleetNotFound
from broker_service.tables import brokers, device_count_changes, device_counts, fleets
from chassis.database import reading
from chassis.isolation import Fleets, is_within

# The counts, and the changes that are not folded into them yet.
_kinds = sa.union_all(sa.select(device_counts), sa.select(device_count_changes)).subquery("kinds")
_devices = sa.func.sum(_kinds.c.devices).label("devices")
_asked: sa.BindParameter[Sequence[int]] = sa.bindparam("ids", type_=sa.ARRAY(sa.Integer))
# The default. It is a subquery, so that no fleet is read unless the default is among the brokers.
_default = sa.select(brokers.c.id).where(brokers.c.is_default).scalar_subquery()
_in_fleets = _kinds.join(fleets, fleets.c.id == _kinds.c.fleet_id)

_brokers = sa.select(brokers.c.id, brokers.c.name, brokers.c.is_active, brokers.c.is_default)
_counts = sa.union_all(
    sa.select(
        _kinds.c.told_broker_id.label("broker_id"),
        sa.literal("told").label("how"),
        _kinds.c.told_source.label("source"),
        _devices,
    )
    .where(_kinds.c.told_broker_id == sa.any_(_asked))
    .group_by(_kinds.c.told_broker_id, _kinds.c.told_source),
    sa.select(_kinds.c.mqtt_broker_id, sa.literal("assigned"), sa.literal("device"), _devices)
    .where(_kinds.c.mqtt_broker_id == sa.any_(_asked))
    .group_by(_kinds.c.mqtt_broker_id),
    sa.select(fleets.c.mqtt_broker_id, sa.literal("assigned"), sa.literal("fleet"), _devices)
    .select_from(_in_fleets)
    .where(fleets.c.mqtt_broker_id == sa.any_(_asked))
    .group_by(fleets.c.mqtt_broker_id),
    sa.select(_default, sa.literal("assigned"), sa.literal("default"), _devices)
    .select_from(_in_fleets)
    .where(
        _default == sa.any_(_asked),
        fleets.c.mqtt_broker_id.is_(None),
        fleets.c.pool_id.is_(None),
    ),
)


@dataclass(frozen=True, slots=True)
class DeviceCounts:
    """The counts of a broker, by source; a missing source is zero."""

    broker_id: int
    name: str
    is_active: bool
    is_default: bool
    assigned: Mapping[str, int]
    told: Mapping[str, int]

    @property
    def place(self) -> tuple[int, int]:
        """Sorts brokers: the one of which most devices were notified first, then by id."""
        return -sum(self.told.values()), self.broker_id


class DeviceCountStore:
    """Reads only; the registry keeps the counts."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine

    async def counts_of(self, broker_id: int) -> DeviceCounts:
        """Raises `BrokerNotFound`."""
        query = _brokers.where(brokers.c.id == broker_id)
        async with reading(self._engine) as connection:
            found = await _counted(connection, query)
        if not found:
            raise BrokerNotFound("there is no such broker")
        return found[0]

    async def counts_after(
        self, broker_id: int | None, limit: int, among: Collection[int] = ()
    ) -> Sequence[DeviceCounts]:
        """The counts of the next brokers, in the order of their ids; if `among` is not empty, only
        of these brokers.
        """
        query = _brokers.order_by(brokers.c.id).limit(limit)
        if broker_id is not None:
            query = query.where(brokers.c.id > broker_id)
        if among:
            query = query.where(brokers.c.id.in_(among))
        async with reading(self._engine) as connection:
            return await _counted(connection, query)

    async def counts_of_fleet(self, fleet_id: str, within: Fleets) -> Mapping[int, int]:
        """How many of the fleet's devices without a pin were told each broker, by its id; 0 stands
        for no broker. Raises `FleetNotFound`.
        """
        asked = sa.select(fleets.c.id).where(
            fleets.c.id == fleet_id, is_within(fleets.c.id, within)
        )
        told = (
            sa.select(_kinds.c.told_broker_id, _devices)
            .where(_kinds.c.fleet_id == fleet_id, _kinds.c.mqtt_broker_id == 0)
            .group_by(_kinds.c.told_broker_id)
        )
        async with reading(self._engine) as connection:
            if (await connection.execute(asked)).first() is None:
                raise FleetNotFound("there is no such fleet")
            rows = await connection.execute(told)
        return {row.told_broker_id: int(row.devices) for row in rows if row.devices}

    async def most_told_after(
        self, place: tuple[int, int] | None, limit: int, among: Collection[int] = ()
    ) -> Sequence[DeviceCounts]:
        """The counts of the next brokers after `place`, in the order of `DeviceCounts.place`; if
        `among` is not empty, only of these brokers.
        """
        query = _brokers.where(brokers.c.id.in_(among)) if among else _brokers
        async with reading(self._engine) as connection:
            found = await _counted(connection, query)
        left = [counts for counts in found if place is None or counts.place > place]
        return heapq.nsmallest(limit, left, key=lambda counts: counts.place)

    async def active_devices(self) -> int:
        """The number of all active devices."""
        async with reading(self._engine) as connection:
            return int(await connection.scalar(sa.select(_devices)) or 0)


async def _counted(
    connection: AsyncConnection, query: sa.Select[tuple[int, str, bool, bool]]
) -> Sequence[DeviceCounts]:
    """The counts of the brokers that `query` finds, in its order."""
    rows = {row.id: row for row in await connection.execute(query)}
    found: dict[tuple[int, str], dict[str, int]] = {}
    for row in await connection.execute(_counts, {"ids": list(rows)}):
        if row.devices:
            found.setdefault((row.broker_id, row.how), {})[row.source] = int(row.devices)
    return [
        DeviceCounts(
            broker_id,
            row.name,
            row.is_active,
            row.is_default,
            assigned=found.get((broker_id, "assigned"), {}),
            told=found.get((broker_id, "told"), {}),
        )
        for broker_id, row in rows.items()
    ]
