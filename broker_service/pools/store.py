"""Pools in the database, as they are now."""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from broker_service.errors import PoolInUse, PoolNotSticky
from broker_service.pools.database import (
    Row,
    all_pools,
    audited,
    changing_pools,
    is_visible,
    pool_of,
    set_members,
    settled,
    slots_of,
)
from broker_service.pools.fields import Fields
from broker_service.tables import pool_members, pools
from chassis import audit
from chassis.database import reading
from chassis.isolation import Fleets
from chassis.revisions import require_revision
from chassis.searching import Start, ordered

# How often a deletion is tried if a pin to the pool is committed meanwhile.
MAX_DELETIONS = 3
_SEARCHED = (pools.c.name, pools.c.description)


class PoolStore:
    """Rows come from `pools`, with the members, and without the slots.

    A change with `if_revision` raises `LostRace` unless `if_revision` is empty or holds the pool's
    revision.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine

    async def pool(self, pool_id: int, within: Fleets) -> Row:
        """Raises `PoolNotFound`, also for a pool with a member that none of the fleets may use."""
        async with reading(self._engine) as connection:
            return await pool_of(connection, pool_id, is_visible(within))

    async def pools_from(
        self,
        start: Start[int],
        limit: int,
        within: Fleets,
        *,
        broker_id: int | None = None,
        ids: Sequence[int] = (),
    ) -> Sequence[Row]:
        """The pools whose members the fleets may use, in the order of their ids. If they are given,
        only those with the member `broker_id`, and only those of `ids`.
        """
        matching = all_pools.where(is_visible(within))
        if broker_id is not None:
            having = sa.select(pool_members.c.pool_id).where(pool_members.c.broker_id == broker_id)
            matching = matching.where(pools.c.id.in_(having))
        if ids:
            matching = matching.where(pools.c.id.in_(ids))
        query = ordered(matching, start, pools.c.id, texts=_SEARCHED)
        async with reading(self._engine) as connection:
            found = await connection.execute(query.limit(limit))
            rows: Sequence[Row] = found.mappings().all()
        return rows

    async def create(self, fields: Fields, *, validate_only: bool = False) -> Row:
        """With `validate_only` nothing is stored, and the row has the id 0. Raises `PoolNameTaken`,
        `BrokerUnknown`.
        """
        async with changing_pools(self._engine, validate_only=validate_only) as connection:
            columns = asdict(fields)
            members = columns.pop("members")
            if validate_only:
                columns["id"] = 0
            insert = sa.insert(pools).values(columns).returning(pools.c.id)
            pool_id = (await connection.execute(insert)).scalar_one()
            await set_members(connection, pool_id, members)
            await settled(connection)
            created = await pool_of(connection, pool_id)
            await audited(connection, "pool.create", None, created)
            return created

    async def update(
        self,
        pool_id: int,
        decide: Callable[[Fields], Fields],
        if_revision: Collection[int] = (),
        *,
        validate_only: bool = False,
    ) -> tuple[Row, Sequence[int], Sequence[int]]:
        """Locks the pool, and gives it the fields that `decide` makes of its fields. Returns the
        row, and the slots before and after. With `validate_only` nothing is stored. Raises
        `PoolNotFound`, `PoolNameTaken`, `BrokerUnknown`, and what `decide` raises.
        """
        async with changing_pools(self._engine, validate_only=validate_only) as connection:
            before = await pool_of(connection, pool_id, is_locked=True)
            slots = await slots_of(connection, pool_id)
            was = Fields.of(before)
            fields = decide(was)
            # Errors of the request itself come first (RFC 9110, section 13.2.1).
            require_revision("pool", before["revision"], if_revision)
            columns = _changed(was, fields)
            if columns:
                update = sa.update(pools).where(pools.c.id == pool_id)
                await connection.execute(update.values(columns))
            if fields.members != was.members:
                await set_members(connection, pool_id, fields.members)
            await settled(connection)
            after = await pool_of(connection, pool_id)
            await audited(connection, "pool.update", before, after)
            return after, slots, await slots_of(connection, pool_id)

    async def delete(self, pool_id: int, if_revision: Collection[int] = ()) -> None:
        """Raises `PoolNotFound`, `PoolIsDefault`, `PoolInUse` with the counts."""
        for _ in range(MAX_DELETIONS):
            try:
                return await self._delete(pool_id, if_revision)
            except PoolInUse as error:
                # Without counts, a foreign key was violated by a row that was committed meanwhile.
                # The next attempt counts it.
                refused = error
                if error.usage:
                    break
        raise refused

    async def _delete(self, pool_id: int, if_revision: Collection[int]) -> None:
        async with changing_pools(self._engine) as connection:
            before = await pool_of(connection, pool_id, is_locked=True)
            require_revision("pool", before["revision"], if_revision)
            await connection.execute(sa.delete(pools).where(pools.c.id == pool_id))
            await settled(connection)
            await audited(connection, "pool.delete", before, None)

    async def set_default(self, pool_id: int, if_revision: Collection[int] = ()) -> Row:
        """Raises `PoolNotFound`, `LostRace`."""
        async with changing_pools(self._engine) as connection:
            before = await pool_of(connection, pool_id, is_locked=True)
            require_revision("pool", before["revision"], if_revision)
            if before["is_default"]:
                return before
            # Two statements, as for the default broker.
            clear = sa.update(pools).where(pools.c.is_default).values(is_default=False)
            cleared = await connection.scalar(clear.returning(pools.c.id))
            make = sa.update(pools).where(pools.c.id == pool_id).values(is_default=True)
            await connection.execute(make)
            await settled(connection)
            await audit.record(
                connection,
                "pool.set_default",
                str(pool_id),
                before={"default_pool_id": cleared},
                after={"default_pool_id": pool_id},
            )
            if cleared is not None:
                # The audit log has a line for the previous default too.
                await audit.record(
                    connection,
                    "pool.set_default",
                    str(cleared),
                    before={"is_default": True},
                    after={"is_default": False},
                )
            return await pool_of(connection, pool_id)

    async def clear_default(self, pool_id: int, if_revision: Collection[int] = ()) -> Row:
        """Nothing changes if the pool is not the default. Raises `PoolNotFound`, `LostRace`."""
        return await self._set(
            pool_id, "pool.clear_default", if_revision, lambda _: {"is_default": False}
        )

    async def rebalance(
        self, pool_id: int, percent: float, if_revision: Collection[int] = ()
    ) -> Row:
        """Begins a rebalancing, or takes it to another percent. Raises `PoolNotFound`,
        `PoolNotSticky`, `LostRace`.
        """

        def columns(before: Row) -> Mapping[str, Any]:
            if not before["is_sticky"]:
                raise PoolNotSticky("devices of a pool that is not sticky move without it")
            # The salt gives the order in which devices are reached. So it stays until the end.
            salt = before["rebalance_salt"] or secrets.token_hex(8)
            return {"rebalance_percent": percent, "rebalance_salt": salt}

        return await self._set(pool_id, "pool.rebalance", if_revision, columns)

    async def stop_rebalancing(self, pool_id: int, if_revision: Collection[int] = ()) -> Row:
        """Nothing changes if there is none. Raises `PoolNotFound`, `LostRace`."""
        none = {"rebalance_percent": None, "rebalance_salt": None}
        return await self._set(pool_id, "pool.stop_rebalancing", if_revision, lambda _: none)

    async def _set(
        self,
        pool_id: int,
        action: str,
        if_revision: Collection[int],
        columns: Callable[[Row], Mapping[str, Any]],
    ) -> Row:
        """Sets the columns that `columns` makes of the locked row."""
        async with changing_pools(self._engine) as connection:
            before = await pool_of(connection, pool_id, is_locked=True)
            values = columns(before)
            require_revision("pool", before["revision"], if_revision)
            if any(before[name] != value for name, value in values.items()):
                update = sa.update(pools).where(pools.c.id == pool_id)
                await connection.execute(update.values(values))
                await settled(connection)
            after = await pool_of(connection, pool_id)
            await audited(connection, action, before, after)
            return after


def _changed(before: Fields, after: Fields) -> dict[str, Any]:
    """The columns of `pools` that differ."""
    was, became = asdict(before), asdict(after)
    return {
        name: value for name, value in became.items() if name != "members" and value != was[name]
    }
