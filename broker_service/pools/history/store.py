"""Reads the histories of pools, which a trigger writes, and rolls pools back."""

from collections.abc import Collection, Sequence
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.errors import PoolNotFound, RevisionNotFound
from broker_service.pools.database import (
    Row,
    audited,
    changing_pools,
    pool_of,
    set_members,
    settled,
)
from broker_service.pools.fields import Fields, check
from broker_service.tables import pool_history, pools
from chassis.database import reading
from chassis.errors import LostRace
from chassis.revisions import require_revision


class PoolHistoryStore:
    """Rows come from `pool_history`; deleted pools have them too."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine

    async def revisions_before(
        self, pool_id: int, revision: int | None, limit: int
    ) -> Sequence[Row]:
        """The next revisions, newest first. Raises `PoolNotFound` if there never was such a
        pool.
        """
        query = sa.select(pool_history).where(pool_history.c.pool_id == pool_id)
        if revision is not None:
            query = query.where(pool_history.c.revision < revision)
        query = query.order_by(pool_history.c.revision.desc()).limit(limit)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).mappings().all()
        if not rows and revision is None:
            raise PoolNotFound("there is no revision of such a pool")
        return rows

    async def revision(self, pool_id: int, revision: int) -> Row:
        """A revision that is not a deletion. Raises `RevisionNotFound`."""
        async with reading(self._engine) as connection:
            return await _revision(connection, pool_id, revision)

    async def roll_back(
        self, pool_id: int, revision: int, if_revision: Collection[int] = ()
    ) -> Row:
        """Restores the fields and members of `revision`; a deleted pool is created again with its
        id. Raises `RevisionNotFound`, `PoolNameTaken`, `BrokerUnknown`, `InvalidInput`, `LostRace`.
        """
        async with changing_pools(self._engine) as connection:
            fields = Fields.of((await _revision(connection, pool_id, revision))["state"])
            try:
                before = await pool_of(connection, pool_id, is_locked=True)
            except PoolNotFound:
                before = None
            # SQL can have set what the API does not accept.
            if before is None or fields != Fields.of(before):
                check(fields)
            columns = asdict(fields)
            members = columns.pop("members")
            if before is None:
                if if_revision:
                    raise LostRace("the pool has been deleted since")
                await connection.execute(sa.insert(pools).values(id=pool_id, **columns))
            else:
                require_revision("pool", before["revision"], if_revision)
                update = sa.update(pools).where(pools.c.id == pool_id)
                await connection.execute(update.values(columns))
            await set_members(connection, pool_id, members)
            await settled(connection)
            after = await pool_of(connection, pool_id)
            await audited(connection, "pool.rollback", before, after)
            return after


async def _revision(connection: AsyncConnection, pool_id: int, revision: int) -> Row:
    query = sa.select(pool_history).where(
        pool_history.c.pool_id == pool_id, pool_history.c.revision == revision
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise RevisionNotFound("the pool has no such revision")
    if row["state"] is None:
        raise RevisionNotFound("the pool was deleted with this revision")
    return row
