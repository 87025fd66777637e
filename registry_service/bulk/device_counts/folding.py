"""Folds the changes of counts again and again, so that there are never many to read."""

from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.loops import Turn
from registry_service.bulk.device_counts.store import DeviceCountStore

# What registrations append in between is some tens of lines.
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
    """Folds all that there is, `batch` changes in a transaction; how many. Raises `Unavailable`."""
    folded = 0
    while changes := await store.fold(batch):
        folded += changes
        if changes < batch:
            break
    return folded
