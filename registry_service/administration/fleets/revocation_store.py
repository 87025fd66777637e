"""Devices of fleets that were disabled, which brokers are to be told of one by one."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import writing


class FleetRevocationStore:
    """Goes on where disabling a large fleet has ended: see the migrations."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def revoke(self, size: int) -> bool:
        """Notes the next `size` devices of one such fleet; whether there was any fleet left.

        In any number of processes. Raises `Unavailable`.
        """
        query = sa.select(sa.func.public.revoke_fleet_devices(sa.cast(None, sa.Text), size))
        async with writing(self._engine) as connection:
            return await connection.scalar(query) is not None
