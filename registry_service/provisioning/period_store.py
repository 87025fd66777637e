"""Ends the periods in which wrong device API keys and rotations are counted."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import writing
from registry_service.provisioning.records import HOUR
from registry_service.tables import api_key_failures, devices

# How long failures are kept, which is longer than a period.
FAILURES_ARE_KEPT = timedelta(hours=1)
# How many rows one transaction updates, in some tenths of a second.
CHUNK = 5_000


class PeriodStore:
    """Connects as mooring_registry."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def end(self) -> None:
        """Ends all periods that are over. Raises `Unavailable`."""
        await self.forget_failures()
        while await self.end_rotations(CHUNK) == CHUNK:
            pass

    async def forget_failures(self) -> None:
        """Deletes the wrong device API keys of periods that have ended. Raises `Unavailable`."""
        old = api_key_failures.c.began_at < sa.func.now() - FAILURES_ARE_KEPT
        async with writing(self._engine) as connection:
            await connection.execute(sa.delete(api_key_failures).where(old))

    async def end_rotations(self, size: int) -> int:
        """Ends up to `size` hours that are over, and returns their number; the database records
        their rotations. A row that is locked is left for the next time. Raises `Unavailable`.
        """
        over = (
            sa.select(devices.c.id)
            .where(devices.c.rotations > 1, devices.c.rotations_since < sa.func.now() - HOUR)
            .order_by(devices.c.id)
            .limit(size)
            .with_for_update(key_share=True, skip_locked=True)
        )
        end = sa.update(devices).where(devices.c.id.in_(over)).values(rotations=0)
        async with writing(self._engine) as connection:
            return (await connection.execute(end)).rowcount
