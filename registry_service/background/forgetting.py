"""Forgets what nobody reads any more, so that it does not pile up whoever else runs."""

import asyncio

import structlog

from chassis.errors import Unavailable
from registry_service.background.store import WorkStore

log = structlog.get_logger(__name__)

INTERVAL_S = 60.0


async def keep_forgetting(store: WorkStore) -> None:
    """Runs until cancelled; in any number of processes."""
    while True:
        try:
            await store.forget_changes()
            await store.forget_failures()
        except Unavailable:
            log.warning("old changes of access and failed attempts cannot be forgotten now")
        await asyncio.sleep(INTERVAL_S)
