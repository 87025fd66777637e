"""Writes revocations for devices of disabled fleets, for brokers."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import writing


class FleetRevocationStore:
    """Disabling a large fleet writes revocations for its first devices; this store writes the rest
    (see the migrations).
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def revoke(self, size: int) -> bool:
        """Writes revocations for the next `size` devices of one such fleet; returns whether there
        was one. Any number of processes may call it. Raises `Unavailable`.
        """
        query = sa.select(sa.func.public.revoke_fleet_devices(sa.cast(None, sa.Text), size))
        async with writing(self._engine) as connection:
            return await connection.scalar(query) is not None
