"""Writes revocations for the devices of large disabled fleets, a chunk at a time."""

from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.loops import Turn
from registry_service.administration.fleets.revocation_store import FleetRevocationStore

INTERVAL_S = 0.5
# A chunk of this size takes some tenths of a second.
CHUNK = 5_000


def revoking(engine: AsyncEngine) -> Turn:
    """A loop's turn; any number of processes may run it. `engine` is mooring_registry's."""
    store = FleetRevocationStore(engine)

    async def turn() -> float:
        return 0.0 if await store.revoke(CHUNK) else INTERVAL_S

    return turn
