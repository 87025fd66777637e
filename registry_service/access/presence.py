"""Which devices are there, as far as brokers say: coarse, and written in batches."""

import asyncio
from collections.abc import Iterable
from itertools import islice

import structlog
from prometheus_client import Counter

from chassis.database import DriverError, described
from chassis.errors import Unavailable
from registry_service.access.questions import Notice
from registry_service.access.sessions import Sessions
from registry_service.access.store import AccessStore

log = structlog.get_logger(__name__)

WRITE_S = 2.0
MAX_WAITING = 50_000
ROWS_AT_ONCE = 2_000

LOST = Counter(
    "mooring_access_notices_lost_total",
    "Notices of devices that came, went or were seen that are not in the database",
)


class Presence:
    """Holds what is yet to be written, the last word on each device."""

    def __init__(self, store: AccessStore, sessions: Sessions) -> None:
        """Writes to `store`; `sessions` say whose a client id is that a broker names alone."""
        self._store = store
        self._sessions = sessions
        self._seen: dict[str, bool | None] = {}
        self._secrets: set[str] = set()

    def used(self, secret_id: str) -> None:
        """A broker has shown this secret."""
        self._secrets.add(secret_id)

    def connected(self, broker_id: int, client_id: str, username: str, now: float) -> None:
        """A broker has let a client in; whether it tells when that leaves, nobody knows."""
        self._sessions.begin(broker_id, client_id, username, now)
        self._note(username, None)

    def told(self, broker_id: int, notices: Iterable[Notice], now: float) -> None:
        """What a broker says itself."""
        for notice in notices:
            client_id, is_kept = notice.client_id, notice.is_kept
            user = self._sessions.user_of(broker_id, client_id, now)
            username = notice.username or user
            if username:
                self._note(username, notice.is_online)
            if username != user:
                continue
            if notice.is_online:
                self._sessions.come(broker_id, client_id, is_kept=is_kept)
            else:
                self._sessions.leave(broker_id, client_id, is_kept=is_kept)

    async def keep_written(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await asyncio.sleep(WRITE_S)
            await self.write()

    async def write(self) -> None:
        """What has come together; what cannot be written now is tried again."""
        unwritten, self._seen = self._seen, {}
        secrets, self._secrets = self._secrets, set()
        try:
            if secrets:
                await self._store.note_use(secrets)
                secrets = set()
            while unwritten:
                part = dict(islice(unwritten.items(), ROWS_AT_ONCE))
                await self._store.note_presence(part)
                for username in part:
                    del unwritten[username]
        except Unavailable:
            log.warning("who is online cannot be written")
        except DriverError as error:
            log.exception("who is online cannot be written", **described(error))
        finally:
            # Also of a process that is stopped in the middle: it writes once more. What was said
            # since is newer.
            since, self._seen = self._seen, unwritten
            for username, is_online in since.items():
                self._note(username, is_online)
            self._secrets |= secrets

    def _note(self, username: str, is_online: bool | None) -> None:
        if username not in self._seen and len(self._seen) >= MAX_WAITING:
            LOST.inc()
            return
        # Having been seen says nothing against having come or gone.
        self._seen[username] = self._seen.get(username) if is_online is None else is_online
