"""The counts and their changes in the database, which are added up in batches."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import take_turns, writing
from domain.turns import DEVICE_COUNTS
from registry_service.tables import device_count_changes, device_counts

KIND = tuple(column.name for column in device_counts.primary_key)


def _fold(batch: int) -> sa.Executable:
    """Deletes the oldest changes and adds them up; returns the counts and the number of changes.
    Changes are folded in the order in which they were appended, so that no device is subtracted
    before it was added.
    """
    oldest = sa.select(device_count_changes.c.id).order_by(device_count_changes.c.id).limit(batch)
    taken = (
        sa.delete(device_count_changes)
        .where(device_count_changes.c.id.in_(oldest.scalar_subquery()))
        .returning(*(device_count_changes.c[name] for name in (*KIND, "devices")))
        .cte("taken")
    )
    total = sa.func.sum(taken.c.devices)
    kinds = [taken.c[name] for name in KIND]
    added = postgresql.insert(device_counts).from_select(
        [*KIND, "devices"], sa.select(*kinds, total).group_by(*kinds)
    )
    becomes: sa.ColumnElement[Any] = device_counts.c.devices + added.excluded.devices
    return added.on_conflict_do_update(
        index_elements=list(KIND), set_={"devices": becomes}
    ).returning(device_counts.c.devices, sa.select(sa.func.count()).select_from(taken).label("n"))


class DeviceCountStore:
    """Writes counts; readers add the changes that are not folded yet."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def fold(self, batch: int) -> int:
        """Adds at most `batch` changes to the counts, in one transaction; returns their number.
        A lock keeps replicas from doing so at the same time. Raises `Unavailable`.
        """
        async with writing(self._engine) as connection:
            await take_turns(connection, DEVICE_COUNTS)
            counts = (await connection.execute(_fold(batch))).all()
            if any(count.devices == 0 for count in counts):
                gone = sa.delete(device_counts).where(device_counts.c.devices == 0)
                await connection.execute(gone)
        return counts[0].n if counts else 0
