"""Subjects in memory, and when they are not to be believed.

What allows is remembered, what denies never is: whoever was denied a moment ago may have been told
of the broker since. Changes are announced by the database where they end somebody's access, and
read several times a second in any case. As long as that goes well memory is believed for a while;
when it does not, for `STALE_S`, everything is looked up. So revoking beats remembering.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import structlog
from prometheus_client import Gauge

from chassis.database_failures import DriverError, described
from chassis.errors import Unavailable
from chassis.listening import Listener
from chassis.probes import Readiness
from chassis.process import background
from registry_service.admission.listener.sessions import Sessions
from registry_service.admission.listener.store import AccessStore, Asker, Found
from registry_service.admission.subjects import Subject

log = structlog.get_logger(__name__)

# How often changes are read that are not announced.
POLL_S = 0.25
# How long after the last reading that went well memory is believed.
STALE_S = 2.0
# However well it goes.
MAX_AGE_S = 60.0
# Registering, and being told a broker, are not announced: for so long a client id may be taken for
# nobody's that has become a device's.
UNOWNED_S = 5.0
MAX_SUBJECTS = 100_000
# From one reading of all secrets to the next, unless something is announced.
SECRETS_S = 10.0

REMEMBERED = Gauge("mooring_access_subjects", "Devices and service accounts in memory")

# Of the running loop's clock.
Time: TypeAlias = float


class SubjectCache:
    """Subjects by their usernames, the longest unused of which are forgotten first."""

    def __init__(self) -> None:
        """Knows nobody."""
        self._subjects: OrderedDict[str, tuple[Subject, Time]] = OrderedDict()
        self._of_fleet: defaultdict[str, set[str]] = defaultdict(set)
        # The uuids that client ids name: which brokers admitted such a device, and when.
        self._claimed: OrderedDict[str, tuple[Collection[int], Time]] = OrderedDict()
        # Of lookups under way: what has changed since they began.
        self._under_way: list[set[str]] = []
        REMEMBERED.set_function(lambda: len(self._subjects))

    def subject(self, username: str, now: Time) -> Subject | None:
        """If it is known, and was looked up lately."""
        found = self._subjects.get(username)
        if found is None or now - found[1] > MAX_AGE_S:
            return None
        return found[0]

    def is_unowned(self, uuid: str, broker_id: int, now: Time) -> bool:
        """Whether the broker admitted no device of this uuid lately.

        What it does not admit is none of its business: not even that there is such a device.
        """
        found = self._claimed.get(uuid)
        return found is not None and now - found[1] <= UNOWNED_S and broker_id not in found[0]

    def begin(self) -> set[str]:
        """To be called before a lookup; what it gives is for `remember`."""
        spoilt: set[str] = set()
        self._under_way.append(spoilt)
        return spoilt

    def remember(
        self, found: Found | None, claimed: Iterable[str], spoilt: set[str], now: Time
    ) -> bool:
        """What a lookup that began at `now` found; whether nothing of it has changed meanwhile.

        `claimed` are the uuids that it looked for; None of a lookup that failed.
        """
        self._under_way = [other for other in self._under_way if other is not spoilt]
        if found is None or "" in spoilt:
            return False
        for uuid in claimed:
            self._claimed[uuid] = found.claimed.get(uuid, ()), now
            self._claimed.move_to_end(uuid)
        while len(self._claimed) > MAX_SUBJECTS:
            self._claimed.popitem(last=False)
        is_whole = True
        for username, subject in found.subjects.items():
            if username in spoilt or subject.fleet_id in spoilt:
                is_whole = False
                continue
            self._subjects[username] = (subject, now)
            self._subjects.move_to_end(username)
            self._of_fleet[subject.fleet_id].add(username)
        while len(self._subjects) > MAX_SUBJECTS:
            self._drop(next(iter(self._subjects)))
        return is_whole

    def forget(self, usernames: Iterable[str], fleet_ids: Iterable[str]) -> None:
        """Their access has changed."""
        changed = set(usernames)
        fleets = set(fleet_ids)
        for fleet_id in fleets:
            changed |= self._of_fleet.get(fleet_id, set())
        for username in changed:
            self._drop(username)
        for spoilt in self._under_way:
            spoilt |= changed | fleets

    def forget_all(self) -> None:
        """Nobody knows what has changed."""
        self._subjects.clear()
        self._of_fleet.clear()
        self._claimed.clear()
        for spoilt in self._under_way:
            spoilt.add("")

    def _drop(self, username: str) -> None:
        found = self._subjects.pop(username, None)
        if found is None:
            return
        fleet_id = found[0].fleet_id
        self._of_fleet[fleet_id].discard(username)
        if not self._of_fleet[fleet_id]:
            del self._of_fleet[fleet_id]


class Changes:
    """Keeps what is known in step with the database."""

    def __init__(
        self, store: AccessStore, listener: Listener, subjects: SubjectCache, sessions: Sessions
    ) -> None:
        """`listener` hears of what ends somebody's access, and of brokers' secrets."""
        self._store = store
        self._listener = listener
        self._subjects = subjects
        self._sessions = sessions
        self._horizon = 0
        self._read_at: Time = float("-inf")
        self._askers: dict[bytes, Asker] = {}
        self._askers_read_at: Time = float("-inf")
        self._announcements = -1

    def is_current(self, now: Time) -> bool:
        """Whether memory is to be believed."""
        return now - self._read_at < STALE_S

    async def readiness(self) -> Readiness:
        """For probes: whether brokers are answered."""
        is_current = self.is_current(asyncio.get_running_loop().time())
        return is_current, {"database": "serving" if is_current else "not_serving"}

    @property
    def askers(self) -> Mapping[bytes, Asker]:
        """Brokers by the hashes of their secrets: another mapping each time they are read."""
        return self._askers

    async def keep_current(self) -> None:
        """Runs until it is cancelled."""
        async with background(self._listener.run()):
            while True:
                await self.read()
                await self._listener.occasion(within_s=POLL_S)

    async def read(self) -> None:
        """What has changed. Where that cannot be read, memory goes stale by itself."""
        begun = _now()
        try:
            horizon, changes = await self._store.changes_since(self._horizon)
            if begun - self._read_at > STALE_S:
                # Lines are kept for minutes; but nobody knows how long this took.
                self._subjects.forget_all()
            for change in changes:
                self._subjects.forget(change.usernames, change.fleet_ids)
                self._sessions.forget(change.usernames)
            self._horizon, self._read_at = horizon, begun
            await self._read_askers(begun)
        except Unavailable:
            log.warning("changes of access cannot be read")
        except DriverError as error:
            log.exception("changes of access cannot be read", **described(error))

    async def _read_askers(self, now: Time) -> None:
        heard = self._listener.announcements
        if heard == self._announcements and now - self._askers_read_at < SECRETS_S:
            return
        self._askers = await self._store.askers()
        self._announcements, self._askers_read_at = heard, now


def _now() -> Time:
    return asyncio.get_running_loop().time()
