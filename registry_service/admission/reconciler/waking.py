"""Wakes the process that manages brokers, after a change for them was committed."""

import asyncio

import structlog

from chassis.database import Pool
from chassis.errors import MooringError
from registry_service.admission.reconciler.store import wake

log = structlog.get_logger(__name__)


class Waking:
    """Notifies it at most once at a time, and never in the transaction of a device.

    Transactions that notify wait for one another, so many notifications become one.
    """

    def __init__(self, pool: Pool) -> None:
        """Starts without a notification."""
        self._pool = pool
        self._is_asked = False
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """Requests a notification, and returns at once."""
        self._is_asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._wake())

    async def close(self) -> None:
        """Sends the requested notifications."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _wake(self) -> None:
        while self._is_asked:
            self._is_asked = False
            try:
                await wake(self._pool)
            except MooringError as error:
                log.warning(
                    "the process that manages brokers was not notified", reason=error.reason
                )
