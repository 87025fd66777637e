"""Timelines in the database. The events of a device are deleted with the device."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import Pool, fetched, reading, writing
from chassis.isolation import Fleets, is_within
from registry_service.activity.timeline.events import Event, Times, rows_of
from registry_service.errors import DeviceNotFound
from registry_service.tables import audit_log, device_events, devices

# This many rows are changed in some tenths of a second.
CHUNK = 5_000
# The newest lines of the audit log about a device, of which its changes are shown.
MAX_LINES = 500

NOTE = "SELECT note_device_events(%s::json)"


async def note(pool: Pool, taken: Mapping[Event, Times]) -> None:
    """Adds events to the timelines of existing devices, and keeps the newest of each. `pool`
    connects as mooring_registry or mooring_access. Raises `Unavailable`.
    """
    await fetched(pool, NOTE, [msgspec.json.encode(rows_of(taken.items())).decode()])


class TimelineStore:
    """Reads timelines, and clears old addresses."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def device(self, uuid: str, within: Fleets) -> sa.Row[Any]:
        """The device with this uuid. Raises `DeviceNotFound`."""
        columns: list[sa.ColumnElement[Any]] = [
            *(devices.c[name] for name in ("id", "created_at", "provisioned_at")),
            devices.c.provisioned_by_key_id,
        ]
        query = sa.select(*columns).where(
            devices.c.uuid == uuid, is_within(devices.c.fleet_id, within)
        )
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise DeviceNotFound("there is no such device")
        return row

    async def events(self, device_id: int) -> Sequence[sa.Row[Any]]:
        """The rows of `device_events`, with the count as `times`."""
        columns: list[sa.ColumnElement[Any]] = [
            *(device_events.c[name] for name in ("kind", "what", "broker_id", "address")),
            *(device_events.c[name] for name in ("details", "first_at", "last_at")),
            # Rows are tuples, which have a method `count`.
            device_events.c.count.label("times"),
        ]
        query = sa.select(*columns).where(device_events.c.device_id == device_id)
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).all()

    async def changes(self, uuid: str, since: datetime) -> Sequence[sa.Row[Any]]:
        """The lines of the audit log about changes of the device by administrators."""
        line = audit_log.c
        lines = (
            sa.select(
                *(line[name] for name in ("at", "actor", "actor_id", "action", "refusal")),
                sa.cast(line.before, sa.Text).label("before"),
                sa.cast(line.after, sa.Text).label("after"),
            )
            .where(line.subject == uuid, line.at >= since)
            .order_by(line.at.desc(), line.id.desc())
            .limit(MAX_LINES)
            .subquery()
        )
        found = lines.c
        changes = sa.select(lines).where(
            found.refusal == "",
            found.actor != "",
            # Lines of the device itself are not changes by administrators.
            found.actor_id != uuid,
            sa.func.starts_with(found.action, "device."),
        )
        async with reading(self._engine) as connection:
            return (await connection.execute(changes)).all()

    async def clear_addresses(self, kept: timedelta) -> None:
        """Clears the addresses of events that are older than `kept`. Raises `Unavailable`."""
        old = (
            sa.select(device_events.c.id)
            .where(
                device_events.c.address != sa.text("''"),
                device_events.c.last_at < sa.func.now() - kept,
            )
            .order_by(device_events.c.last_at)
            .limit(CHUNK)
            .with_for_update(skip_locked=True)
        )
        clear = sa.update(device_events).where(device_events.c.id.in_(old)).values(address=None)
        cleared = CHUNK
        while cleared == CHUNK:
            async with writing(self._engine) as connection:
                cleared = (await connection.execute(clear)).rowcount
