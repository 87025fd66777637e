"""Deletes old changes of access, which all processes that follow them have read."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import writing
from registry_service.tables import access_changes

# The channel on which the database announces that access has changed.
CHANNEL = "mooring_access"
# Processes read changes within seconds. A process that has not read for longer drops its cache.
CHANGES_ARE_KEPT = timedelta(minutes=10)


class ChangeStore:
    """Connects as mooring_registry."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def forget(self) -> None:
        """Deletes changes that are older than `CHANGES_ARE_KEPT`. Raises `Unavailable`."""
        old = access_changes.c.at < sa.func.now() - CHANGES_ARE_KEPT
        async with writing(self._engine) as connection:
            await connection.execute(sa.delete(access_changes).where(old))
