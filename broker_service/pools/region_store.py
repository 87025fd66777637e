"""The regions that name a pool."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.errors import BrokerInactive, BrokerUnknown, PoolUnknown
from broker_service.pools.database import changing_pools, pool_of
from broker_service.tables import brokers, pools, regions
from chassis import audit
from chassis.database import reading


class PoolRegionStore:
    """Counts and moves regions."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine

    async def count(self, pool_id: int) -> int:
        """Raises `PoolNotFound`."""
        query = sa.select(sa.func.count()).where(regions.c.pool_id == pool_id)
        async with reading(self._engine) as connection:
            await pool_of(connection, pool_id)
            return (await connection.execute(query)).scalar_one()

    async def move(self, pool_id: int, *, to_pool_id: int = 0, to_broker_id: int = 0) -> int:
        """Makes the regions name one of these; returns their number. Raises `PoolNotFound`,
        `PoolUnknown`, `BrokerUnknown`, `BrokerInactive`.
        """
        async with changing_pools(self._engine) as connection:
            await pool_of(connection, pool_id)
            values: dict[str, Any]
            if to_pool_id:
                await _require_pool(connection, to_pool_id)
                values = {"pool_id": to_pool_id}
            else:
                await _require_broker(connection, to_broker_id)
                values = {"pool_id": None, "mqtt_broker_id": to_broker_id}
            update = sa.update(regions).where(regions.c.pool_id == pool_id).values(values)
            moved = sorted(
                (await connection.execute(update.returning(regions.c.id))).scalars().all()
            )
            if moved:
                target = (
                    {"to_pool_id": to_pool_id} if to_pool_id else {"to_broker_id": to_broker_id}
                )
                await audit.record(
                    connection,
                    "pool.move_regions",
                    str(pool_id),
                    after={**target, "regions": moved},
                )
            return len(moved)


async def _require_pool(connection: AsyncConnection, pool_id: int) -> None:
    query = sa.select(pools.c.id).where(pools.c.id == pool_id)
    if await connection.scalar(query) is None:
        raise PoolUnknown("there is no such pool", field="to_pool_id")


async def _require_broker(connection: AsyncConnection, broker_id: int) -> None:
    is_active = await connection.scalar(
        sa.select(brokers.c.is_active).where(brokers.c.id == broker_id)
    )
    if is_active is None:
        raise BrokerUnknown("there is no such broker", field="to_broker_id")
    if not is_active:
        raise BrokerInactive(
            "activate the broker before moving regions to it", field="to_broker_id"
        )
