"""Tells brokers of the devices of large fleets that were disabled, some at a time."""

import asyncio

import structlog

from chassis.errors import Unavailable
from registry_service.administration.fleets.revocation_store import FleetRevocationStore

log = structlog.get_logger(__name__)

INTERVAL_S = 0.5
# Some tenths of a second.
CHUNK = 5_000


async def keep_revoking(store: FleetRevocationStore) -> None:
    """Runs until cancelled; in any number of processes."""
    while True:
        try:
            while await store.revoke(CHUNK):
                pass
        except Unavailable:
            log.warning("brokers cannot be told of disabled fleets now")
        await asyncio.sleep(INTERVAL_S)
