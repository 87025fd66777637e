"""Records what happens to devices: a caller counts in memory, and the rest is in the background."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from chassis.database import Pool
from chassis.database_failures import DriverError, described
from chassis.errors import Unavailable
from registry_service.activity.series import store as series
from registry_service.activity.series.counts import Counts
from registry_service.activity.timeline import store as timeline
from registry_service.activity.timeline.events import (
    ANSWER_CHANGED,
    CREDENTIALS_REVOKED,
    CREDENTIALS_ROTATED,
    REPORTED,
    Client,
    Event,
    Events,
    address_of,
)

log = structlog.get_logger(__name__)

COUNTS_EVERY_S = 5.0
EVENTS_EVERY_S = 2.0
# So many events at once are written in some tenths of a second. What is more than this waits, so a
# storm of events does not take the database's time from registrations.
EVENTS_AT_ONCE = 2_000


class Activity:
    """What the registry service records of devices."""

    def __init__(self, pool: Pool) -> None:
        """`pool` connects as mooring_registry."""
        self._pool = pool
        self.counts = Counts()
        self.events = Events()

    def registered(self, devices: Mapping[tuple[str, bool], int], took_s: float) -> None:
        """Counts registrations, by the fleet and whether the device is new; each took `took_s`."""
        if devices:
            self.counts.registered(devices, took_s, time.time())

    def refused(
        self, kind: str, reason: str, fleet_id: str = "", *, uuid: str = "", address: str = ""
    ) -> None:
        """Counts a refusal. `uuid` is that of an existing device, which gets an event of `kind`;
        empty if there is none. `fleet_id` is empty if it is not known.
        """
        now = time.time()
        self.counts.refused(reason, fleet_id, now)
        if uuid:
            self.events.add(Event(Client(uuid), kind, reason, 0, address_of(address)), now)

    def answer_changed(
        self, uuid: str, address: str, generation: str, details: Mapping[str, Any]
    ) -> None:
        """Adds an event: the device got another answer. `details` are those of the event."""
        event = Event(Client(uuid), ANSWER_CHANGED, generation, 0, address_of(address))
        self.events.add(event, time.time(), details)

    def credentials_rotated(self, uuid: str, address: str) -> None:
        """Adds an event: the device got another password."""
        event = Event(Client(uuid), CREDENTIALS_ROTATED, "", 0, address_of(address))
        self.events.add(event, time.time())

    def credentials_revoked(self, uuid: str) -> None:
        """Adds an event: an administrator ended the device's password."""
        self.events.add(Event(Client(uuid), CREDENTIALS_REVOKED), time.time())

    def reported(self, uuid: str, address: str, state: str, broker_id: int | None) -> None:
        """Adds an event: the device reported another state of its connection, or another broker.
        `broker_id` is None for a broker that it was not told.
        """
        event = Event(Client(uuid), REPORTED[state], "", broker_id or 0, address_of(address))
        self.events.add(event, time.time())

    async def keep_counts_written(self) -> None:
        """Runs until it is cancelled."""
        await _repeated(self.write_counts, COUNTS_EVERY_S)

    async def keep_events_written(self) -> None:
        """Runs until it is cancelled."""
        await keep_events_written(self._pool, self.events)

    async def close(self) -> None:
        """Writes what is left."""
        await asyncio.gather(self.write_counts(), write_all_events(self._pool, self.events))

    async def write_counts(self) -> None:
        """Adds the counts to the database; if that fails, they are tried again. If a connection
        breaks during a commit, it is not known whether they are written, and they may count twice.
        """
        taken = self.counts.take()
        if not taken:
            return
        try:
            await series.add(self._pool, taken)
            taken = {}
        except Unavailable:
            log.warning("registrations and refusals cannot be added to the series now")
        except DriverError as error:
            log.exception("the database refuses counts of registrations", **described(error))
            taken = {}
        finally:
            self.counts.put_back(taken)


async def keep_events_written(pool: Pool, events: Events) -> None:
    """Runs until it is cancelled."""
    await _repeated(lambda: write_events(pool, events), EVENTS_EVERY_S)


async def write_all_events(pool: Pool, events: Events) -> None:
    """Writes what is left, when a process ends."""
    while await write_events(pool, events):
        pass


async def write_events(pool: Pool, events: Events) -> bool:
    """Adds some of the events to the database; if that fails, they are tried again. Returns whether
    any were added.
    """
    taken = events.take(EVENTS_AT_ONCE)
    if not taken:
        return False
    try:
        await timeline.note(pool, taken)
        taken = {}
    except Unavailable:
        log.warning("events of devices cannot be written now", events=len(taken))
        return False
    except DriverError as error:
        log.exception("the database refuses events of devices", **described(error))
        taken = {}
    finally:
        events.put_back(taken)
    return True


async def _repeated(write: Callable[[], Awaitable[object]], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await write()
