"""Folds the changes of counts repeatedly, so that there are never many to read."""

from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.loops import Turn
from registry_service.bulk.device_counts.store import DeviceCountStore

# The pause between two turns, in which registrations append some tens of rows.
INTERVAL_S = 1.0
BATCH = 10_000


def folding(engine: AsyncEngine) -> Turn:
    """A loop's turn; any number of processes may run it. `engine` is mooring_registry's."""
    store = DeviceCountStore(engine)

    async def turn() -> float:
        await fold(store)
        return INTERVAL_S

    return turn


async def fold(store: DeviceCountStore, batch: int = BATCH) -> int:
    """Folds all changes, `batch` of them in a transaction. Returns their number. Raises
    `Unavailable`.
    """
    folded = 0
    while changes := await store.fold(batch):
        folded += changes
        if changes < batch:
            break
    return folded
