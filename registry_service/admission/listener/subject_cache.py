"""The cache of subjects, and when it is valid.

Subjects that a broker admits are cached. Denials are not, because a device that was denied may have
got an answer with the broker since. The database announces changes that end access, and the process
also reads changes several times a second. If reading fails for `STALE_S`, the cache is not used,
and the database is queried. So a revocation takes effect in spite of the cache.
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

# How often changes are read if none is announced.
POLL_S = 0.25
# How long after the last successful reading the cache is used.
STALE_S = 2.0
# The longest time that a subject is cached.
MAX_AGE_S = 60.0
# New registrations and answers are not announced. For this time, a client id may be taken for
# unowned although a device has registered to which it belongs.
UNOWNED_S = 5.0
MAX_SUBJECTS = 100_000
# How often all secrets are read if no change of them is announced.
SECRETS_S = 10.0

REMEMBERED = Gauge("mooring_access_subjects", "Devices and service accounts in memory")

# A time of the running loop's clock.
Time: TypeAlias = float


class SubjectCache:
    """Subjects by their usernames; the least recently used are dropped first."""

    def __init__(self) -> None:
        """Starts empty."""
        self._subjects: OrderedDict[str, tuple[Subject, Time]] = OrderedDict()
        self._of_fleet: defaultdict[str, set[str]] = defaultdict(set)
        # For uuids that client ids name: the brokers that admit the device, and when that was read.
        self._claimed: OrderedDict[str, tuple[Collection[int], Time]] = OrderedDict()
        # The changes since each lookup under way began.
        self._under_way: list[set[str]] = []
        REMEMBERED.set_function(lambda: len(self._subjects))

    def subject(self, username: str, now: Time) -> Subject | None:
        """The subject, if it is cached and was read recently."""
        found = self._subjects.get(username)
        if found is None or now - found[1] > MAX_AGE_S:
            return None
        return found[0]

    def is_unowned(self, uuid: str, broker_id: int, now: Time) -> bool:
        """Whether the last lookup found no device with this uuid that the broker admits. A broker
        must not learn about other devices, not even that they exist.
        """
        found = self._claimed.get(uuid)
        return found is not None and now - found[1] <= UNOWNED_S and broker_id not in found[0]

    def begin(self) -> set[str]:
        """Call it before a lookup. Returns a set that collects the changes since then, for
        `remember`.
        """
        changed_meanwhile: set[str] = set()
        self._under_way.append(changed_meanwhile)
        return changed_meanwhile

    def remember(
        self, found: Found | None, claimed: Iterable[str], changed_meanwhile: set[str], now: Time
    ) -> bool:
        """Stores the result of a lookup that began at `now`; returns whether it is still valid as a
        whole. `found` is None if the lookup failed; `claimed` are the uuids that it looked for;
        `changed_meanwhile` is the set from `begin`.
        """
        self._under_way = [other for other in self._under_way if other is not changed_meanwhile]
        if found is None or "" in changed_meanwhile:
            return False
        for uuid in claimed:
            self._claimed[uuid] = found.claimed.get(uuid, ()), now
            self._claimed.move_to_end(uuid)
        while len(self._claimed) > MAX_SUBJECTS:
            self._claimed.popitem(last=False)
        is_whole = True
        for username, subject in found.subjects.items():
            if username in changed_meanwhile or subject.fleet_id in changed_meanwhile:
                is_whole = False
                continue
            self._subjects[username] = (subject, now)
            self._subjects.move_to_end(username)
            self._of_fleet[subject.fleet_id].add(username)
        while len(self._subjects) > MAX_SUBJECTS:
            self._drop(next(iter(self._subjects)))
        return is_whole

    def forget(self, usernames: Iterable[str], fleet_ids: Iterable[str]) -> None:
        """Drops subjects whose access has changed."""
        changed = set(usernames)
        fleets = set(fleet_ids)
        for fleet_id in fleets:
            changed |= self._of_fleet.get(fleet_id, set())
        for username in changed:
            self._drop(username)
        for changed_meanwhile in self._under_way:
            changed_meanwhile |= changed | fleets

    def forget_all(self) -> None:
        """Drops everything, because the changes are not known."""
        self._subjects.clear()
        self._of_fleet.clear()
        self._claimed.clear()
        for changed_meanwhile in self._under_way:
            changed_meanwhile.add("")

    def _drop(self, username: str) -> None:
        found = self._subjects.pop(username, None)
        if found is None:
            return
        fleet_id = found[0].fleet_id
        self._of_fleet[fleet_id].discard(username)
        if not self._of_fleet[fleet_id]:
            del self._of_fleet[fleet_id]


class Changes:
    """Keeps the cache in step with the database."""

    def __init__(
        self, store: AccessStore, listener: Listener, subjects: SubjectCache, sessions: Sessions
    ) -> None:
        """`listener` receives announcements of ended access and of changed secrets of brokers."""
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
        """Whether the cache may be used."""
        return now - self._read_at < STALE_S

    async def readiness(self) -> Readiness:
        """For probes: whether brokers get answers."""
        is_current = self.is_current(asyncio.get_running_loop().time())
        return is_current, {"database": "serving" if is_current else "not_serving"}

    @property
    def askers(self) -> Mapping[bytes, Asker]:
        """Brokers by the hashes of their secrets; a new mapping after each reading."""
        return self._askers

    async def keep_current(self) -> None:
        """Runs until it is cancelled."""
        async with background(self._listener.run()):
            while True:
                await self.read()
                await self._listener.occasion(within_s=POLL_S)

    async def read(self) -> None:
        """Reads changes. If that fails, the cache becomes invalid by itself after a while."""
        begun = _now()
        try:
            horizon, changes = await self._store.changes_since(self._horizon)
            if begun - self._read_at > STALE_S:
                # Changes are deleted after some minutes, and the pause may have been longer.
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
