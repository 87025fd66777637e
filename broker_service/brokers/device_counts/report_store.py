"""Reads what devices report of brokers."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.tables import broker_reports
from chassis.database import reading
from domain.reports import MIN_DEVICES, MIN_FLEETS, Reports, is_out_of_reach


class ReportStore:
    """Reads only; the registry writes the reports."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine

    async def reports_of(self, broker_ids: Collection[int]) -> Mapping[int, Reports]:
        """What devices report of each broker, by its id. Raises `Unavailable`."""
        return await self._read(broker_reports.c.broker_id.in_(broker_ids))

    async def out_of_reach(self) -> frozenset[int]:
        """The brokers that so many devices cannot reach that they are degraded. Raises
        `Unavailable`.
        """
        async with reading(self._engine) as connection:
            return await out_of_reach(connection)

    async def _read(self, condition: sa.ColumnElement[bool]) -> Mapping[int, Reports]:
        async with reading(self._engine) as connection:
            return await _reports(connection, condition)


async def out_of_reach(connection: AsyncConnection) -> frozenset[int]:
    """The brokers that so many devices cannot reach that they are degraded. Devices that are
    connected are counted only for brokers that enough devices fail to reach.
    """
    failing = broker_reports.c.failing_devices >= MIN_DEVICES
    found = await _reports(connection, failing & (broker_reports.c.failing_fleets >= MIN_FLEETS))
    return frozenset(one for one, reports in found.items() if is_out_of_reach(reports))


async def _reports(
    connection: AsyncConnection, condition: sa.ColumnElement[bool]
) -> Mapping[int, Reports]:
    rows = await connection.execute(sa.select(broker_reports).where(condition))
    return {
        row.broker_id: Reports(row.failing_devices, row.failing_fleets, row.connected_devices)
        for row in rows
    }
