"""Stored counts of devices, which requests only read: exact after every kind of change."""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import migrations
from chassis.database import engine_of
from chassis.process import background
from local.postgres import Postgres
from registry_service.bulk.device_counts.folding import fold, folding
from registry_service.bulk.device_counts.store import DeviceCountStore
from tests.stack import Database
from tests.turns import repeated

EXAMPLES = settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

Connection = psycopg.Connection[Any]

PREPARE = """
INSERT INTO mqtt_broker_config (id, name, host, port) VALUES (1, 'one', 'h', 1), (2, 'two', 'h', 1);
INSERT INTO fleets (id, name) VALUES ('a', 'A'), ('b', 'B');
INSERT INTO provisioning_keys (key_hash, fleet_id) VALUES ('ka', 'a'), ('kb', 'b');
"""
INSERT = """
INSERT INTO devices (
    uuid, device_name, device_type, fleet_id, mqtt_broker_id, is_active, mqtt_username,
    mqtt_password_hash, credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id
)
SELECT '{mine}-' || n, '', '', (ARRAY['a', 'b'])[1 + n % 2], nullif(n % 3, 0), n % 5 <> 0, '', '',
       '', 1, '', (SELECT id FROM provisioning_keys AS key
                   WHERE key.fleet_id = (ARRAY['a', 'b'])[1 + n % 2])
FROM generate_series({n}, {n} + 6) AS n
ON CONFLICT (uuid) DO {conflict}
"""
# What a transaction may do to the devices whose uuids begin with `mine`.
STEPS = (
    INSERT.replace("{conflict}", "NOTHING"),
    INSERT.replace("{conflict}", "UPDATE SET mqtt_broker_id = 2, told_source = 'device'"),
    "UPDATE devices SET mqtt_broker_id = 2 WHERE uuid LIKE '{mine}-%' AND id % 3 = {n} % 3",
    "UPDATE devices SET mqtt_broker_id = NULL WHERE uuid LIKE '{mine}-%' AND id % 2 = {n} % 2",
    """
    UPDATE devices SET fleet_id = key.fleet_id, provisioned_by_key_id = key.id
    FROM provisioning_keys AS key
    WHERE key.fleet_id = 'a' AND uuid LIKE '{mine}-%' AND devices.id % 4 = {n} % 4
    """,
    "UPDATE devices SET is_active = NOT is_active WHERE uuid LIKE '{mine}-%' AND id % 3 = {n} % 3",
    """
    UPDATE devices SET told_broker_ids = '{{2,1}}', told_source = 'fleet', told_ca_ids = '{{7,8}}'
    WHERE uuid LIKE '{mine}-%' AND id % 2 = {n} % 2
    """,
    """
    UPDATE devices SET told_broker_ids = '{{}}', told_source = 'environment'
    WHERE uuid LIKE '{mine}-%' AND id % 3 = {n} % 3
    """,
    "UPDATE devices SET is_online = NOT is_online WHERE uuid LIKE '{mine}-%'",
    "UPDATE devices SET fleet_id = 'b' WHERE false",
    "DELETE FROM devices WHERE uuid LIKE '{mine}-%' AND id % 4 = {n} % 4",
    "SAVEPOINT before; DELETE FROM devices WHERE uuid LIKE '{mine}-%'; ROLLBACK TO before",
    "COMMIT",
    "ROLLBACK",
)
FOLD = "fold some of what is committed"
WRITERS = 3


@pytest.fixture
def connections(database: Database) -> Iterator[list[Connection]]:
    """One connection that reads, and those of the writers, each with its own transaction."""
    with contextlib.ExitStack() as exits:
        found = [exits.enter_context(psycopg.connect(database.url("mooring"))) for _ in range(4)]
        found[0].autocommit = True
        found[0].execute(PREPARE)
        yield found


def recounted(connection: Connection) -> tuple[Counter[Any], Counter[Any]]:
    """The devices and the stored counts of one snapshot, by kind, without zeros."""
    devices: Counter[Any] = Counter()
    counts: Counter[Any] = Counter()
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for fleet_id, pin, told, source, ca_ids in connection.execute(
            "SELECT fleet_id, mqtt_broker_id, told_broker_ids, told_source, told_ca_ids"
            " FROM devices WHERE is_active"
        ):
            told_id = told[0] if told else 0
            devices["" if pin else fleet_id, pin or 0, told_id, source, tuple(ca_ids)] += 1
        for fleet_id, pin, told_id, source, ca_ids, count in connection.execute(
            "SELECT fleet_id, mqtt_broker_id, told_broker_id, told_source, told_ca_ids, devices"
            " FROM device_counts UNION ALL"
            " SELECT fleet_id, mqtt_broker_id, told_broker_id, told_source, told_ca_ids, devices"
            " FROM device_count_changes"
        ):
            counts[fleet_id, pin, told_id, source, tuple(ca_ids)] += count
    return devices, Counter({kind: count for kind, count in counts.items() if count})


@contextlib.asynccontextmanager
async def stores(database: Database, count: int) -> AsyncIterator[list[DeviceCountStore]]:
    """`count` stores, each with connections of its own."""
    engines = [engine_of(database.url("mooring_registry")) for _ in range(count)]
    yield [DeviceCountStore(engine) for engine in engines]
    for engine in engines:
        await engine.dispose()


def test_counts_are_exact_at_any_moment(connections: list[Connection], database: Database) -> None:
    looking, *writers = connections
    step = st.tuples(
        st.integers(0, WRITERS - 1), st.sampled_from([*STEPS, FOLD]), st.integers(0, 20)
    )

    async def fold_some(most: int) -> None:
        async with stores(database, 1) as [store]:
            await store.fold(most)

    @EXAMPLES
    @given(st.lists(step, min_size=1, max_size=25))
    def check(steps: list[tuple[int, str, int]]) -> None:
        for writer in writers:
            writer.rollback()
        looking.execute("TRUNCATE devices")
        for number, statement, n in steps:
            if statement == FOLD:
                asyncio.run(fold_some(1 + n))
            else:
                writers[number].execute(statement.format(mine=f"w{number}", n=n).encode())
            devices, counts = recounted(looking)
            assert counts == devices
        for writer in writers:
            writer.commit()
        devices, counts = recounted(looking)
        assert counts == devices

    check()


def test_updates_that_change_no_kind_are_not_counted(connections: list[Connection]) -> None:
    looking = connections[0]
    looking.execute(STEPS[0].format(mine="w", n=0).encode())
    before = looking.execute("SELECT count(*) FROM device_count_changes").fetchone()
    looking.execute("UPDATE devices SET last_seen_at = now(), told_at = now()")
    looking.execute("UPDATE devices SET mqtt_broker_id = mqtt_broker_id")
    assert looking.execute("SELECT count(*) FROM device_count_changes").fetchone() == before


def test_a_statement_appends_a_line_for_each_kind_and_not_for_each_device(
    connections: list[Connection],
) -> None:
    looking = connections[0]
    looking.execute(STEPS[0].format(mine="w", n=0).encode())
    [(devices, lines)] = looking.execute(
        "SELECT sum(devices), count(*) FROM device_count_changes"
    ).fetchall()
    assert (devices, lines) == (5, 4)


async def test_replicas_fold_each_change_once(
    connections: list[Connection], database: Database
) -> None:
    looking = connections[0]
    for n in range(0, 70, 7):
        looking.execute(STEPS[0].format(mine="w", n=n).encode())
        looking.execute(STEPS[2].format(mine="w", n=n).encode())
    devices, counts = recounted(looking)
    [(waiting,)] = looking.execute("SELECT count(*) FROM device_count_changes").fetchall()
    async with stores(database, 3) as replicas:
        folded = await asyncio.gather(*(fold(store, batch=3) for store in replicas))
    assert sum(folded) == waiting > 30
    assert looking.execute("SELECT FROM device_count_changes").fetchall() == []
    assert recounted(looking) == (devices, counts) == (devices, devices)
    # A kind without devices is deleted.
    looking.execute("DELETE FROM devices")
    async with stores(database, 1) as [store]:
        await fold(store)
    assert looking.execute("SELECT FROM device_counts").fetchall() == []


async def test_counts_are_folded_while_the_process_runs(
    connections: list[Connection], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_service.bulk.device_counts.folding.INTERVAL_S", 0.01)
    looking = connections[0]
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(database.url("mooring_registry"))
        stack.push_async_callback(engine.dispose)
        await stack.enter_async_context(background(repeated(folding(engine))))
        for n in (0, 7):
            looking.execute(STEPS[0].format(mine="w", n=n).encode())
            async with asyncio.timeout(10):
                while looking.execute("SELECT FROM device_count_changes").fetchall():
                    await asyncio.sleep(0.01)


def test_existing_devices_are_counted_once_by_the_migration(
    postgres: Postgres, template: str
) -> None:
    name = f"test_{secrets.token_hex(6)}"
    database = Database(postgres, name, template)
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} OWNER mooring".encode())
        try:
            migrations.upgrade(database.url("mooring"), "0007")
            with psycopg.connect(database.url("mooring"), autocommit=True) as looking:
                looking.execute(PREPARE)
                looking.execute(STEPS[0].format(mine="w", n=0).encode())
                migrations.upgrade(database.url("mooring"))
                looking.execute(STEPS[0].format(mine="w", n=7).encode())
                devices, counts = recounted(looking)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    assert counts == devices
    assert devices.total() == 11
