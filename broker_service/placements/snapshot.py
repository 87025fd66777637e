"""The brokers and fleets in memory: one immutable snapshot, replaced when the database announces a
change. Brokers are few and change seldom, so every answer is made from memory. Devices are never
kept in memory.
"""

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import sqlalchemy as sa
from mooring.broker.v1 import resolution_pb2 as pb
from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError

from broker_service.certificates.expiry import ExpiryWatch
from broker_service.database import ca_cert_of
from broker_service.placements.store import PlacementStore, Reading
from broker_service.resolution import Directory
from broker_service.settings import TOLD_MANAGEMENT, url_of
from chassis.errors import Unavailable
from chassis.following import REREAD_S, Follower
from chassis.listening import Listener
from chassis.server import Health
from domain.pools import Policy

DATABASE = "database"

READ = Counter(
    "mooring_placement_rows_read_total",
    "Brokers and fleets that were read into memory: those that something touched, or all",
    ["kind"],
)

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The data for resolving, as of one moment."""

    directory: Directory
    # The settings of each broker for clients, by id.
    settings: Mapping[int, pb.BrokerSettings]
    # The version in the row placement_version.
    version: str
    # Whether the choice between brokers may depend on the locations of devices.
    needs_locations: bool = False

    @classmethod
    def of(cls, reading: Reading) -> "Snapshot":
        """The snapshot from a complete reading."""
        return cls._made(reading.directory, _settings_in(reading), reading.version)

    @classmethod
    def _made(
        cls, directory: Directory, settings: Mapping[int, pb.BrokerSettings], version: str
    ) -> "Snapshot":
        is_near = any(pool.policy is Policy.NEAREST for pool in directory.pools.values())
        return cls(directory, settings, version, is_near)

    def with_touched(self, reading: Reading) -> "Snapshot":
        """The next snapshot, from a reading of the rows that were touched since."""
        touched, read = reading.touched, reading.directory
        if touched is None:
            return Snapshot.of(reading)
        if reading.version == self.version:
            return self
        was = self.directory
        default_id = None if was.default_id in touched.broker_ids else was.default_id
        # The reading has more pools than those that were touched: see `Touched`.
        pool_ids = touched.pool_ids | read.pools.keys()
        default_pool_id = None if was.default_pool_id in pool_ids else was.default_pool_id
        directory = Directory(
            brokers=_replaced(was.brokers, touched.broker_ids, read.brokers),
            fleets=_replaced(was.fleets, touched.fleet_ids, read.fleets),
            default_id=default_id if read.default_id is None else read.default_id,
            pools=_replaced(was.pools, pool_ids, read.pools),
            regions=_replaced(was.regions, touched.region_ids, read.regions),
            healths=_replaced(was.healths, touched.state_ids, read.healths),
            default_pool_id=default_pool_id
            if read.default_pool_id is None
            else read.default_pool_id,
        )
        settings = _replaced(self.settings, touched.broker_ids, _settings_in(reading))
        return Snapshot._made(directory, settings, reading.version)


class SnapshotKeeper(Follower):
    """Owns the current snapshot. Without a database it keeps the last one, marked stale."""

    def __init__(self, store: PlacementStore, listener: Listener, health: Health) -> None:
        """`health` gets whether there is a snapshot, and whether it is current."""
        super().__init__(listener)
        self._store = store
        self._health = health
        self._snapshot: Snapshot | None = None
        self._has_read = False
        self._expiry = ExpiryWatch()
        # The connection that was listening when the last reading began.
        self._read_with = 0
        # The time of the last complete reading, by the running loop's clock.
        self._all_read_at = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether the database may have changed since the snapshot was read."""
        listener = self._listener
        is_heard = listener.is_listening and listener.connections == self._read_with
        return not (self._has_read and is_heard)

    @property
    def current(self) -> Snapshot:
        """The current snapshot. Raises `Unavailable` until the database has been read once."""
        if self._snapshot is None:
            raise Unavailable(
                "the broker service has not read the brokers yet", reason="NO_SNAPSHOT"
            )
        return self._snapshot

    async def _read(self) -> None:
        connection = self._listener.connections
        begun_at = asyncio.get_running_loop().time()
        before = self._snapshot
        # All rows are read from time to time, so that unannounced changes are noticed too.
        is_all_due = begun_at - self._all_read_at >= REREAD_S
        since = "" if before is None or is_all_due or self.is_stale else before.version
        try:
            known = before.directory.pools if before else None
            reading = await self._listener.reading(lambda: self._store.read(since, known))
        except (Unavailable, DBAPIError):
            self._has_read = False
        else:
            self._snapshot = before.with_touched(reading) if before else Snapshot.of(reading)
            if reading.touched is None:
                self._all_read_at = begun_at
            READ.labels("broker").inc(len(reading.directory.brokers))
            READ.labels("fleet").inc(len(reading.directory.fleets))
            self._has_read = True
            self._read_with = connection
            if reading.expiring is not None:
                self._expiry.check(reading.expiring, datetime.now(UTC))
        await self._report_health()

    async def _noticed(self) -> None:
        await self._report_health()

    async def _report_health(self) -> None:
        await self._health.say(DATABASE, is_serving=not self.is_stale)
        await self._health.say("", is_serving=self._snapshot is not None)


def _replaced(
    old: Mapping[Key, Value], keys: Collection[Key], new: Mapping[Key, Value]
) -> Mapping[Key, Value]:
    """A copy of `old`, with the values of `new` for `keys`."""
    copy = dict(old)
    for key in keys:
        copy.pop(key, None)
    return {**copy, **new}


def _settings_in(reading: Reading) -> dict[int, pb.BrokerSettings]:
    return {row["id"]: _settings_of(row) for row in reading.rows}


def _settings_of(row: sa.RowMapping) -> pb.BrokerSettings:
    settings = pb.BrokerSettings(
        id=row["id"],
        url=url_of(row["protocol"], row["host"], row["port"], row["path"]),
        protocol=row["protocol"],
        host=row["host"],
        port=row["port"],
        path=row["path"],
        use_tls=row["use_tls"],
        verify_certificate=row["verify_certificate"],
        client_id_prefix=row["client_id_prefix"],
        keep_alive_s=row["keep_alive"],
        clean_session=row["clean_session"],
        reconnect_period_ms=row["reconnect_period"],
        connect_timeout_ms=row["connect_timeout"],
        ca_cert=ca_cert_of(row),
        client_cert=row["client_cert"],
    )
    digest = hashlib.sha256(settings.SerializeToString(deterministic=True))
    settings.generation = digest.hexdigest()[:16]
    # Answers to devices do not contain these fields, so they are not part of the generation.
    ca_ids = (row["ca_certificate_id"], row["next_ca_id"])
    settings.ca_certificate_ids.extend(ca_id for ca_id in ca_ids if ca_id is not None)
    settings.is_told = row["management"] == TOLD_MANAGEMENT
    return settings
