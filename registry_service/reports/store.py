"""The last reports of devices in the database. A device's reports are deleted with the device."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import Pool, fetched, reading
from chassis.isolation import Fleets, is_within
from registry_service.errors import DeviceNotFound
from registry_service.reports.report import Report
from registry_service.tables import device_reports, devices

NOTE = "SELECT device_id, state, broker_id FROM note_device_reports(%s::json)"


class Change(Struct, frozen=True):
    """A written report that differs from the last one of its device. `broker_id` is None for a
    broker that the device was not told.
    """

    device_id: int
    state: str
    broker_id: int | None


class ReportStore:
    """Writes and reads reports."""

    def __init__(self, engine: AsyncEngine, pool: Pool) -> None:
        """Both connect as mooring_registry; `pool` is for writing."""
        self._engine = engine
        self._pool = pool

    async def note(self, reports: Mapping[tuple[int, str], Report]) -> Sequence[Change]:
        """Writes reports, by the id of the device and the state, in one statement. A report within
        a minute after another of the same device and state is not written. Raises `Unavailable`.
        """
        rows = [
            {
                "device_id": device_id,
                **(msgspec.structs.asdict(report.address) if report.address else {}),
                "state": state,
                "error": report.error,
                "generation": report.generation,
            }
            for (device_id, state), report in reports.items()
        ]
        found = await fetched(self._pool, NOTE, [msgspec.json.encode(rows).decode()])
        return [Change(*row) for row in found]

    async def reports_of(self, uuid: str, within: Fleets) -> Sequence[sa.Row[Any]]:
        """The rows of `device_reports` of a device, the newest first. Raises `DeviceNotFound`."""
        asked = sa.select(devices.c.id).where(
            devices.c.uuid == uuid, is_within(devices.c.fleet_id, within)
        )
        async with reading(self._engine) as connection:
            device_id = await connection.scalar(asked)
            if device_id is None:
                raise DeviceNotFound("there is no such device")
            rows = await connection.execute(
                sa.select(device_reports)
                .where(device_reports.c.device_id == device_id)
                .order_by(device_reports.c.reported_at.desc(), device_reports.c.state)
            )
            return rows.all()
