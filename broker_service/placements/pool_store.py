"""Reads pools, regions and the states of brokers from the database, for the resolution."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from broker_service.resolution import RegionRule, Target
from broker_service.tables import broker_states, brokers, pool_members, pools, regions
from domain.pools import HEALTHY, Health, Location, Member, Policy, Pool, State

_members = (
    sa.select(pool_members, brokers.c.region, regions.c.latitude, regions.c.longitude)
    .select_from(
        pool_members.join(brokers, pool_members.c.broker_id == brokers.c.id).outerjoin(
            regions, brokers.c.region == regions.c.id
        )
    )
    .order_by(pool_members.c.pool_id, pool_members.c.broker_id)
)

# A condition on rows; None for all rows.
Condition = sa.ColumnElement[bool] | None
Read = sa.Row[*tuple[Any, ...]]


_columns = [column for column in pools.c if column is not pools.c.slots]


async def pools_of(
    connection: AsyncConnection, condition: Condition, known: Mapping[int, Pool]
) -> tuple[dict[int, Pool], int | None]:
    """The pools by id, and the default one if it is among them. One that is as in `known` stays the
    same object, and its slots, which are long, are not read again.
    """
    query = sa.select(*_columns)
    rows = (await connection.execute(query if condition is None else query.where(condition))).all()
    if not rows:
        return {}, None
    changed = [row.id for row in rows if row.revision != _revision_of(known, row.id)]
    slots_of: dict[int, Sequence[int]] = {}
    if changed:
        found_slots = sa.select(pools.c.id, pools.c.slots).where(pools.c.id.in_(changed))
        slots_of = {row.id: row.slots for row in await connection.execute(found_slots)}
    found = await connection.execute(
        _members.where(pool_members.c.pool_id.in_([row.id for row in rows]))
    )
    members: dict[int, list[Member]] = {row.id: [] for row in rows}
    for row in found:
        member = Member(row.broker_id, row.weight, row.priority, row.region, location_of(row))
        members[row.pool_id].append(member)
    read = {}
    for row in rows:
        old = known.get(row.id)
        slots = slots_of[row.id] if old is None or row.id in slots_of else old.slots
        pool = _pool(row, members[row.id], slots)
        read[row.id] = old if old is not None and old == pool else pool
    return read, next((row.id for row in rows if row.is_default), None)


async def regions_of(connection: AsyncConnection, condition: Condition) -> Mapping[str, RegionRule]:
    """The regions by id."""
    query = sa.select(regions)
    rows = await connection.execute(query if condition is None else query.where(condition))
    return {
        row.id: RegionRule(Target(row.mqtt_broker_id, row.pool_id), location_of(row))
        for row in rows
    }


async def healths_of(connection: AsyncConnection, condition: Condition) -> Mapping[int, Health]:
    """The states of brokers that are not simply up."""
    query = sa.select(broker_states)
    rows = await connection.execute(query if condition is None else query.where(condition))
    read = {
        row.broker_id: Health(State(row.state), row.is_full, row.returning_percent, row.salt)
        for row in rows
    }
    return {key: health for key, health in read.items() if health != HEALTHY}


def location_of(row: Read) -> Location | None:
    """Latitude and longitude in degrees; None if the row has none."""
    return None if row.latitude is None else (row.latitude, row.longitude)


def _revision_of(known: Mapping[int, Pool], pool_id: int) -> int | None:
    pool = known.get(pool_id)
    return None if pool is None else pool.revision


def _pool(row: Read, members: list[Member], slots: Sequence[int]) -> Pool:
    return Pool(
        row.id,
        tuple(members),
        Policy(row.policy),
        row.is_sticky,
        slots,
        row.rebalance_percent or 0.0,
        row.rebalance_salt or "",
        row.revision,
    )
