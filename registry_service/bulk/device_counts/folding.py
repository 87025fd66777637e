"""Folds the changes of counts again and again, so that there are never many to read."""

import asyncio

import structlog

from chassis.errors import Unavailable
from registry_service.bulk.device_counts.store import DeviceCountStore

log = structlog.get_logger(__name__)

# What registrations append in between is some tens of lines.
INTERVAL_S = 1.0
BATCH = 10_000


async def keep_folded(store: DeviceCountStore) -> None:
    """Runs until cancelled; in any number of processes."""
    while True:
        try:
            await fold(store)
        except Unavailable:
            log.warning("counts of devices cannot be folded now")
        await asyncio.sleep(INTERVAL_S)


async def fold(store: DeviceCountStore, batch: int = BATCH) -> int:
    """Folds all that there is, `batch` changes in a transaction; how many. Raises `Unavailable`."""
    folded = 0
    while changes := await store.fold(batch):
        folded += changes
        if changes < batch:
            break
    return folded
