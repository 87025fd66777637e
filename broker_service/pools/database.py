"""The parts that all changes of a pool share: transaction, settling and audit log."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.brokers.store import is_usable
from broker_service.database import changing, constraint_of, in_words
from broker_service.errors import (
    BrokerUnknown,
    PoolInUse,
    PoolIsDefault,
    PoolNameTaken,
    PoolNotFound,
)
from broker_service.pools.differences import differences
from broker_service.tables import brokers, pool_members, pools
from chassis import audit
from chassis.errors import LostRace, counted
from chassis.isolation import Fleets

Row = sa.RowMapping

_member = sa.func.jsonb_build_object(
    *(part for name in ("broker_id", "weight", "priority") for part in (name, pool_members.c[name]))
)
_members = (
    sa.select(
        sa.func.coalesce(
            sa.func.jsonb_agg(postgresql.aggregate_order_by(_member, pool_members.c.broker_id)),
            sa.literal([], postgresql.JSONB),
        )
    )
    .where(pool_members.c.pool_id == pools.c.id)
    .scalar_subquery()
    .label("members")
)
# The pools with their members, without their slots, which are long.
all_pools = sa.select(*(column for column in pools.c if column.name != "slots"), _members)


@contextlib.asynccontextmanager
async def changing_pools(
    engine: AsyncEngine, *, validate_only: bool = False
) -> AsyncIterator[AsyncConnection]:
    """A transaction that changes pools, like `changing`."""
    async with changing(engine, validate_only=validate_only, fact_of=_fact_of) as connection:
        yield connection


async def pool_of(
    connection: AsyncConnection,
    pool_id: int,
    *conditions: sa.ColumnElement[bool],
    is_locked: bool = False,
) -> Row:
    """The pool's row with its members. Raises `PoolNotFound`, also for a pool that does not meet
    the conditions.
    """
    query = all_pools.where(pools.c.id == pool_id, *conditions)
    if is_locked:
        # With a key share lock, registrations with a pin to the pool do not wait.
        query = query.with_for_update(of=pools, key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise PoolNotFound("there is no such pool")
    return row


async def slots_of(connection: AsyncConnection, pool_id: int) -> Sequence[int]:
    """The first member of each slot."""
    slots = await connection.scalar(sa.select(pools.c.slots).where(pools.c.id == pool_id))
    return slots or ()


async def set_members(
    connection: AsyncConnection, pool_id: int, members: Sequence[Mapping[str, int]]
) -> None:
    """Replaces the members of a pool, and writes only rows that differ."""
    here = pool_members.c.pool_id == pool_id
    kept = [member["broker_id"] for member in members]
    await connection.execute(
        sa.delete(pool_members).where(here, pool_members.c.broker_id.not_in(kept))
    )
    if not members:
        return
    insert = postgresql.insert(pool_members)
    given = insert.excluded
    upsert = insert.on_conflict_do_update(
        index_elements=["pool_id", "broker_id"],
        set_={"weight": given.weight, "priority": given.priority},
        where=sa.or_(
            pool_members.c.weight != given.weight, pool_members.c.priority != given.priority
        ),
    )
    await connection.execute(upsert, [{"pool_id": pool_id, **member} for member in members])


async def settled(connection: AsyncConnection) -> None:
    """Lets the triggers that run at the end of a transaction run now: they give pools their slots,
    revisions and history.
    """
    await connection.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))


async def audited(
    connection: AsyncConnection, action: str, before: Row | None, after: Row | None
) -> None:
    """Writes the changed fields to the audit log, if there are any."""
    changes = differences(before, after)
    row = after or before
    if row is not None and changes:
        was = {name: change.before for name, change in changes.items()}
        became = {name: change.after for name, change in changes.items()}
        await audit.record(
            connection,
            action,
            str(row["id"]),
            before=None if before is None else was,
            after=None if after is None else became,
        )


def is_visible(within: Fleets) -> sa.ColumnElement[bool]:
    """Whether these fleets may use all members of a pool. Others would see brokers of other
    customers in it; a pool without members belongs to no customer.
    """
    if within is None:
        return sa.true()
    members = (
        sa.select(pool_members.c.broker_id)
        .join(brokers, brokers.c.id == pool_members.c.broker_id)
        .where(pool_members.c.pool_id == pools.c.id)
    )
    return sa.and_(sa.exists(members), ~sa.exists(members.where(~is_usable(within))))


def _fact_of(error: IntegrityError) -> Exception:
    constraint, detail = constraint_of(error)
    match constraint:
        case "pools_name_key":
            return PoolNameTaken("another pool has this name", field="name")
        case "pools_pkey":
            return LostRace("another request has restored the pool")
        case "at_most_one_default_pool":
            return LostRace("another request has set another default")
        case "default_pool_is_kept":
            return PoolIsDefault("make another pool the default first, or none")
        case "used_pool_is_kept":
            usage = counted(detail)
            return PoolInUse(
                f"used by {in_words(usage)}: move them to another pool first", usage=usage
            )
        case "pool_members_broker_id_fkey":
            return BrokerUnknown("names a broker that does not exist", field="members")
    if isinstance(error.orig, ForeignKeyViolation):
        return PoolInUse("a device, fleet, provisioning key or region refers to this pool")
    return error
