"""Wakes the process that manages brokers, after a change for them was committed."""

import asyncio

import structlog

from chassis.database import Pool
from chassis.errors import MooringError
from registry_service.admission.reconciler.store import wake

log = structlog.get_logger(__name__)


class Waking:
    """Sends one notification at a time, never in the transaction that changes a device.

    Transactions that notify wait for one another, so requests that come together share one
    notification.
    """

    def __init__(self, pool: Pool) -> None:
        """No notification is requested yet."""
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
