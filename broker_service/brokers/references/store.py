"""Counts and moves the rows of the broker service's tables that refer to a broker."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.database import changing, require_broker
from broker_service.errors import BrokerInactive, BrokerNotFound
from broker_service.tables import brokers, pool_members, regions
from chassis import audit
from chassis.database import reading

# The columns that refer to a broker, by the names of their counts.
REFERENCES: Mapping[str, sa.Column[Any]] = {
    "regions": regions.c.mqtt_broker_id,
    "pools": pool_members.c.broker_id,
    "backups": brokers.c.backup_broker_id,
}


class ReferenceStore:
    """The counts are by the names in `REFERENCES`."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine

    async def counts_of(self, broker_id: int) -> dict[str, int]:
        """Raises `BrokerNotFound`."""
        counts = sa.select(
            sa.exists(sa.select(brokers.c.id).where(brokers.c.id == broker_id)).label("is_there"),
            *(
                sa.select(sa.func.count())
                .select_from(column.table)
                .where(column == broker_id)
                .scalar_subquery()
                .label(name)
                for name, column in REFERENCES.items()
            ),
        )
        async with reading(self._engine) as connection:
            found = dict((await connection.execute(counts)).mappings().one())
        if not found.pop("is_there"):
            raise BrokerNotFound("there is no such broker")
        return found

    async def move(self, broker_id: int, to_id: int) -> dict[str, int]:
        """Makes everything refer to `to_id`; returns the numbers, and writes a line of the audit
        log. Raises `BrokerNotFound`, `BrokerUnknown`, `BrokerInactive`.
        """
        async with changing(self._engine) as connection:
            there = sa.select(brokers.c.id).where(brokers.c.id == broker_id)
            if (await connection.execute(there)).first() is None:
                raise BrokerNotFound("there is no such broker")
            if not await require_broker(connection, to_id, field="to_broker_id"):
                raise BrokerInactive(
                    "activate the broker before moving devices to it", field="to_broker_id"
                )
            # No broker is its own backup.
            clear = sa.update(brokers).values(backup_broker_id=None)
            clear = clear.where(brokers.c.id == to_id, brokers.c.backup_broker_id == broker_id)
            # The id of the region, the pool, or the broker whose backup it was.
            moved = {
                "regions": await _pointed(connection, regions.c.mqtt_broker_id, broker_id, to_id),
                "pools": await _replaced(connection, broker_id, to_id),
                "backups": [
                    *(await connection.execute(clear.returning(brokers.c.id))).scalars(),
                    *await _pointed(connection, brokers.c.backup_broker_id, broker_id, to_id),
                ],
            }
            ids = {name: sorted(found) for name, found in moved.items() if found}
            if ids:
                await audit.record(
                    connection,
                    "broker.move_users",
                    str(broker_id),
                    after={"to_broker_id": to_id, **ids},
                )
        return {name: len(found) for name, found in moved.items()}


async def _pointed(
    connection: AsyncConnection, column: sa.Column[Any], broker_id: int, to_id: int
) -> list[Any]:
    """Sets the column to `to_id`; returns the ids of the changed rows."""
    move = sa.update(column.table).where(column == broker_id).values({column: to_id})
    return [*(await connection.execute(move.returning(column.table.c.id))).scalars()]


async def _replaced(connection: AsyncConnection, broker_id: int, to_id: int) -> list[int]:
    """Puts `to_id` into the pools in the place of `broker_id`; returns the ids of the pools."""
    has_both = sa.select(pool_members.c.pool_id).where(pool_members.c.broker_id == to_id)
    ours = pool_members.c.broker_id == broker_id
    leave = sa.delete(pool_members).where(ours, pool_members.c.pool_id.in_(has_both))
    replace = sa.update(pool_members).where(ours).values(broker_id=to_id)
    return [
        pool_id
        for statement in (leave, replace)
        for pool_id in (
            await connection.execute(statement.returning(pool_members.c.pool_id))
        ).scalars()
    ]
