"""Deletes what no process reads any more, and ends the hours in which rotations were counted."""

import asyncio

import structlog

from chassis.errors import Unavailable
from registry_service.bulk.jobs.work_store import WorkStore

log = structlog.get_logger(__name__)

INTERVAL_S = 60.0
# Some tenths of a second.
CHUNK = 5_000


async def keep_forgetting(store: WorkStore) -> None:
    """Runs until cancelled; in any number of processes."""
    while True:
        try:
            await store.forget_changes()
            await store.forget_failures()
            while await store.end_rotation_periods(CHUNK) == CHUNK:
                pass
        except Unavailable:
            log.warning("old changes of access, failed attempts and rotations cannot be tidied now")
        await asyncio.sleep(INTERVAL_S)
