"""Regions in the database."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.database import changing, constraint_of
from broker_service.errors import BrokerUnknown, PoolUnknown, RegionIdTaken, RegionNotFound
from broker_service.tables import regions
from chassis import audit
from chassis.database import reading
from chassis.revisions import require_revision
from chassis.searching import Start, ordered

Row = sa.RowMapping
AUDITED = ("name", "latitude", "longitude", "mqtt_broker_id", "pool_id")


class RegionStore:
    """Rows come from `regions`. A change with `if_revision` raises `LostRace` unless `if_revision`
    is empty or holds the region's revision.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine

    async def region(self, region_id: str) -> Row:
        """Raises `RegionNotFound`."""
        async with reading(self._engine) as connection:
            return await _region_of(connection, region_id)

    async def regions_from(self, start: Start[str], limit: int) -> Sequence[Row]:
        """The next regions, in the order of their ids."""
        query = ordered(
            sa.select(regions), start, regions.c.id, texts=(regions.c.id, regions.c.name)
        )
        async with reading(self._engine) as connection:
            rows: Sequence[Row] = (await connection.execute(query.limit(limit))).mappings().all()
        return rows

    async def create(self, region_id: str, columns: Mapping[str, Any]) -> Row:
        """Raises `RegionIdTaken`, `BrokerUnknown`, `PoolUnknown`."""
        async with changing(self._engine, fact_of=_fact_of) as connection:
            await connection.execute(sa.insert(regions).values(id=region_id, **columns))
            created = await _region_of(connection, region_id)
            await audit.record(connection, "region.create", region_id, after=_audited(created))
            return created

    async def update(
        self,
        region_id: str,
        decide: Callable[[Row], Mapping[str, Any]],
        if_revision: Collection[int] = (),
    ) -> Row:
        """Locks the row, calls `decide` with it, and changes the columns in its result. Raises
        `RegionNotFound`, `BrokerUnknown`, `PoolUnknown`, and what `decide` raises.
        """
        async with changing(self._engine, fact_of=_fact_of) as connection:
            before = await _region_of(connection, region_id, is_locked=True)
            columns = decide(before)
            require_revision("region", before["revision"], if_revision)
            if columns:
                update = sa.update(regions).where(regions.c.id == region_id)
                await connection.execute(update.values(dict(columns)))
            after = await _region_of(connection, region_id)
            await audit.record(
                connection,
                "region.update",
                region_id,
                before=_audited(before),
                after=_audited(after),
            )
            return after

    async def delete(self, region_id: str, if_revision: Collection[int] = ()) -> None:
        """Raises `RegionNotFound`."""
        async with changing(self._engine, fact_of=_fact_of) as connection:
            before = await _region_of(connection, region_id, is_locked=True)
            require_revision("region", before["revision"], if_revision)
            await connection.execute(sa.delete(regions).where(regions.c.id == region_id))
            await audit.record(connection, "region.delete", region_id, before=_audited(before))


async def _region_of(
    connection: AsyncConnection, region_id: str, *, is_locked: bool = False
) -> Row:
    query = sa.select(regions).where(regions.c.id == region_id)
    if is_locked:
        query = query.with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise RegionNotFound("there is no such region")
    return row


def _audited(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in AUDITED}


def _fact_of(error: IntegrityError) -> Exception:
    match constraint_of(error)[0]:
        case "regions_pkey":
            return RegionIdTaken("another region has this id", field="id")
        case "regions_mqtt_broker_id_fkey":
            return BrokerUnknown("there is no such broker", field="mqtt_broker_id")
        case "regions_pool_id_fkey":
            return PoolUnknown("there is no such pool", field="pool_id")
    return error
