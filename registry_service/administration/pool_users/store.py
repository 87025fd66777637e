"""Counts what refers to a pool in the database, and moves it a chunk at a time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, take_turns, writing
from domain.turns import PLACEMENT
from registry_service.errors import (
    BrokerInactive,
    BrokerNotAllowed,
    BrokerUnknown,
    PoolNotFound,
    PoolUnknown,
)
from registry_service.tables import (
    brokers,
    devices,
    fleet_brokers,
    fleets,
    pools,
    provisioning_keys,
)

# How many rows one transaction locks, for some tens of milliseconds. Registrations of these devices
# wait that long.
CHUNK = 1_000


class Target(NamedTuple):
    """Where things move: a pool or a broker."""

    pool_id: int | None = None
    broker_id: int | None = None


class PoolUserStore:
    """A move is several transactions, each of which is safe to repeat. Each writes a line of the
    audit log. Keys come before devices, so that no later registration makes a device with a pin to
    the old pool.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def usage(self, pool_id: int) -> dict[str, int]:
        """The counts, by the fields of `PoolUsage`. Raises `PoolNotFound`."""
        counts = sa.select(
            _count(devices.c.pool_id == pool_id).label("devices"),
            _count(fleets.c.pool_id == pool_id).label("fleets"),
            _count(provisioning_keys.c.default_pool_id == pool_id).label("keys"),
            sa.exists(sa.select(pools.c.id).where(pools.c.id == pool_id)).label("is_there"),
        )
        async with reading(self._engine) as connection:
            found = dict((await connection.execute(counts)).mappings().one())
        if not found.pop("is_there"):
            raise PoolNotFound("there is no such pool")
        return found

    async def move_rules(self, pool_id: int, target: Target) -> dict[str, int]:
        """Moves the keys and fleets; returns their numbers. Raises `PoolNotFound`, `PoolUnknown`,
        `BrokerUnknown`, `BrokerInactive`, `BrokerNotAllowed`.
        """
        try:
            async with writing(self._engine) as connection:
                await take_turns(connection, PLACEMENT)
                await _require_target(connection, pool_id, target)
                await _require_allowed(connection, pool_id, target)
                key = provisioning_keys.c
                keys = await _pointed(
                    connection, key.default_pool_id, key.default_broker_id, pool_id, target
                )
                fleet_ids = await _pointed(
                    connection, fleets.c.pool_id, fleets.c.mqtt_broker_id, pool_id, target
                )
                await _record(connection, pool_id, target, {"keys": keys, "fleets": fleet_ids})
        except IntegrityError:
            # Only the foreign key of the target can be violated: it was deleted meanwhile.
            raise _no_target(target) from None
        return {"keys": len(keys), "fleets": len(fleet_ids)}

    async def move_devices(
        self, pool_id: int, target: Target, after: int | None
    ) -> tuple[int, int | None]:
        """Moves the next chunk of devices, after the row `after`. A device that is pinned to a
        broker too keeps that pin. Returns the number, and the last row if there may be more. Raises
        `PoolNotFound`, `PoolUnknown`, `BrokerUnknown`, `BrokerInactive`.
        """
        # Rows are locked in the order that all changes of several rows use.
        chosen = sa.select(devices.c.id).where(devices.c.pool_id == pool_id)
        chosen = chosen.order_by(devices.c.id).limit(CHUNK)
        if after is not None:
            chosen = chosen.where(devices.c.id > after)
        locked = chosen.with_for_update(key_share=True).cte("chosen").prefix_with("MATERIALIZED")
        columns: dict[str, Any] = {"pool_id": target.pool_id}
        if target.broker_id is not None:
            columns["mqtt_broker_id"] = sa.func.coalesce(devices.c.mqtt_broker_id, target.broker_id)
        move = (
            sa.update(devices)
            .where(devices.c.id.in_(sa.select(locked.c.id)))
            .values(columns)
            .returning(devices.c.id)
        )
        try:
            async with writing(self._engine) as connection:
                await _require_target(connection, pool_id, target)
                moved = (await connection.execute(move)).scalars().all()
                await _record(connection, pool_id, target, {"devices": len(moved)})
        except IntegrityError:
            raise _no_target(target) from None
        return len(moved), max(moved) if len(moved) == CHUNK else None


def _count(condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).where(condition).scalar_subquery()


def _no_target(target: Target) -> PoolUnknown | BrokerUnknown:
    if target.pool_id is not None:
        return PoolUnknown("there is no such pool", field="to_pool_id")
    return BrokerUnknown("there is no such broker", field="to_broker_id")


async def _require_target(connection: AsyncConnection, pool_id: int, target: Target) -> None:
    wanted = [pool_id, *filter(None, [target.pool_id])]
    found = set(
        (await connection.execute(sa.select(pools.c.id).where(pools.c.id.in_(wanted)))).scalars()
    )
    if pool_id not in found:
        raise PoolNotFound("there is no such pool")
    if target.pool_id is not None:
        if target.pool_id not in found:
            raise _no_target(target)
        return
    query = sa.select(brokers.c.is_active).where(brokers.c.id == target.broker_id)
    is_active = await connection.scalar(query)
    if is_active is None:
        raise _no_target(target)
    if not is_active:
        raise BrokerInactive(
            "activate the broker before moving devices to it", field="to_broker_id"
        )


async def _require_allowed(connection: AsyncConnection, pool_id: int, target: Target) -> None:
    """Raises `BrokerNotAllowed` if the target is a broker that a restricted fleet may not use. A
    restricted fleet uses those members of a pool that it may use, so a pool needs no check.
    """
    if target.broker_id is None:
        return
    allowed = sa.exists().where(
        fleet_brokers.c.fleet_id == fleets.c.id, fleet_brokers.c.broker_id == target.broker_id
    )
    uses = sa.or_(
        fleets.c.pool_id == pool_id,
        sa.exists().where(
            provisioning_keys.c.fleet_id == fleets.c.id,
            provisioning_keys.c.default_pool_id == pool_id,
        ),
        sa.exists().where(devices.c.fleet_id == fleets.c.id, devices.c.pool_id == pool_id),
    )
    stranded = sa.select(sa.func.count()).where(fleets.c.is_restricted, ~allowed, uses)
    count = await connection.scalar(stranded)
    if count:
        raise BrokerNotAllowed(
            f"restricted fleets ({count}) use this pool and may not use the broker",
            field="to_broker_id",
            usage={"fleets": count},
        )


async def _pointed(
    connection: AsyncConnection,
    pool: sa.Column[int | None],
    broker: sa.Column[int | None],
    pool_id: int,
    target: Target,
) -> Sequence[Any]:
    """Sets the two columns of a table to the target; returns the ids of the changed rows, in
    order.
    """
    table = pool.table
    chosen = (
        sa.select(table.c.id)
        .where(pool == pool_id)
        .order_by(table.c.id)
        .with_for_update(key_share=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED")
    )
    move = (
        sa.update(table)
        .where(table.c.id.in_(sa.select(chosen.c.id)))
        .values({pool: target.pool_id, broker: target.broker_id})
        .returning(table.c.id)
    )
    return sorted((await connection.execute(move)).scalars())


async def _record(
    connection: AsyncConnection, pool_id: int, target: Target, moved: Mapping[str, Any]
) -> None:
    """Writes the line of the audit log. `moved` maps names to numbers or lists of ids; a name with
    0 or an empty list is left out.
    """
    moved = {which: rows for which, rows in moved.items() if rows}
    if moved:
        where = {f"to_{name}": value for name, value in target._asdict().items() if value}
        await audit.record(connection, "pool.move_users", str(pool_id), after={**where, **moved})
