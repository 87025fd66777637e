"""Records which devices are online, from brokers' notices, in batches."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice

import structlog
from msgspec import Struct
from prometheus_client import Counter

from chassis.database_failures import DriverError, described
from chassis.errors import Unavailable
from registry_service.admission.listener.sessions import Sessions, Standing
from registry_service.admission.listener.store import AccessStore
from registry_service.admission.questions import Connect, Notice

log = structlog.get_logger(__name__)

WRITE_S = 2.0
# The limit for each broker, so that one broker's notices do not displace another's.
MAX_WAITING = 50_000
ROWS_AT_ONCE = 2_000

LOST = Counter(
    "mooring_access_notices_lost_total",
    "Reports about connections of devices that were not written to the database",
)
REFUSED = Counter(
    "mooring_access_notices_refused_total",
    "Reports about devices that the broker does not serve",
    ["broker_id"],
)


class Report(Struct, frozen=True):
    """The last report about a device. `is_online` is None if the device was accepted, and the
    broker has not reported that it is connected.
    """

    is_online: bool | None
    at_ms: int


class Presence:
    """Holds notices until they are written, by broker and by username."""

    def __init__(self, store: AccessStore, sessions: Sessions) -> None:
        """Writes to `store`; `sessions` holds the open connections."""
        self._store = store
        self._sessions = sessions
        self._seen: defaultdict[int, dict[str, Report]] = defaultdict(dict)
        self._secrets: set[str] = set()

    def used(self, secret_id: str) -> None:
        """Records that a broker has shown this secret."""
        self._secrets.add(secret_id)

    def connected(self, broker_id: int, question: Connect, now: float) -> None:
        """Records that a client is accepted; its broker may or may not report when it leaves."""
        username = question.username
        self._sessions.begin(broker_id, question.client_id, username, now, question.peer)
        self.accepted(broker_id, username)

    def accepted(self, broker_id: int, username: str) -> None:
        """Does the same for a client whose session is recorded already."""
        seen = self._seen[broker_id]
        if username not in seen:
            self._note(broker_id, username, Report(None, 0))

    def reported(self, broker_id: int, notices: Iterable[Notice], now: float) -> None:
        """Records the notices of a broker."""
        now_ms = int(time.time() * 1000)
        for notice in notices:
            for standing in self._sessions.note(broker_id, notice, now, now_ms):
                if standing.username:
                    self._note(broker_id, standing.username, _report_of(standing))

    async def keep_written(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await asyncio.sleep(WRITE_S)
            await self.write()

    async def write(self) -> None:
        """Writes all reports. Those that cannot be written now are written next time."""
        unwritten, self._seen = self._seen, defaultdict(dict)
        secrets, self._secrets = self._secrets, set()
        try:
            if secrets:
                await self._store.note_use(secrets)
                secrets = set()
            while unwritten:
                # Each broker gets one part in turn.
                for broker_id, seen in list(unwritten.items()):
                    part = dict(islice(seen.items(), ROWS_AT_ONCE))
                    await self._write(broker_id, part)
                    for username in part:
                        del seen[username]
                    if not seen:
                        del unwritten[broker_id]
        except Unavailable:
            log.warning("states of connections cannot be written")
        except DriverError as error:
            log.exception("states of connections cannot be written", **described(error))
        finally:
            # Keep the unwritten reports, also if the process is being stopped and will write once
            # more. Reports that arrived meanwhile replace them.
            since, self._seen = self._seen, unwritten
            for broker_id, seen in since.items():
                for username, report in seen.items():
                    self._note(broker_id, username, report)
            self._secrets |= secrets

    async def _write(self, broker_id: int, seen: dict[str, Report]) -> None:
        rows = {username: (report.is_online, report.at_ms) for username, report in seen.items()}
        refused = await self._store.note_presence(broker_id, rows)
        if refused:
            REFUSED.labels(broker_id).inc(refused)
            log.warning(
                "a broker sent reports about devices that it does not serve",
                broker_id=broker_id,
                devices=refused,
            )

    def _note(self, broker_id: int, username: str, report: Report) -> None:
        seen = self._seen[broker_id]
        before = seen.get(username)
        if before is None and len(seen) >= MAX_WAITING:
            LOST.inc()
            return
        # A report without `is_online` does not replace one with it.
        if before is None or report.is_online is not None:
            seen[username] = report


def _report_of(standing: Standing) -> Report:
    return Report(standing.is_online, standing.at_ms)
