"""Counts the requests of devices that the registry does not see, or does not answer: the gateway
refuses some itself, and some calls fail. The counts are sent to the registry in the background.
"""

import asyncio
from collections import Counter

import structlog
from mooring.registry.v1 import registration_pb2 as pb

from chassis.errors import MooringError
from gateway.service_clients import ServiceClients

log = structlog.get_logger(__name__)

SEND_EVERY_S = 5.0
SEND_WITHIN_S = 2.0
MAX_COUNT = 2**32 - 1


class RefusalCounts:
    """Refusals by reason; there are about as many reasons as in `gateway.reasons`."""

    def __init__(self, services: ServiceClients) -> None:
        """Sends to the registry of `services`."""
        self._services = services
        self._counts: Counter[str] = Counter()

    def note(self, reason: str, count: int = 1) -> None:
        """Counts refusals."""
        self._counts[reason] += count

    async def keep_sent(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await asyncio.sleep(SEND_EVERY_S)
            await self.send()

    async def send(self) -> None:
        """Sends the counts; if that fails, they are tried again."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        refusals = [
            pb.NotedRefusals(reason=reason, count=min(count, MAX_COUNT))
            for reason, count in counts.items()
        ]
        try:
            await self._services.registry.call(
                self._services.registration.NoteRefusals,
                pb.NoteRefusalsRequest(refusals=refusals),
                deadline=asyncio.get_running_loop().time() + SEND_WITHIN_S,
            )
            counts = Counter()
        except MooringError as error:
            log.warning("refusals cannot be counted by the registry now", reason=error.reason)
        finally:
            self._counts.update(counts)
