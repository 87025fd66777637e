"""Counts of devices, which no request has to make: exact after whatever changed the devices."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stack import Database

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
INSERT INTO provisioning_keys (key_hash, fleet_id) VALUES ('k', 'a');
"""
INSERT = """
INSERT INTO devices (
    uuid, device_name, device_type, fleet_id, mqtt_broker_id, is_active, mqtt_username,
    mqtt_password_hash, credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id
)
SELECT '{mine}-' || n, '', '', (ARRAY['a', 'b'])[1 + n % 2], nullif(n % 3, 0), n % 5 <> 0, '', '',
       '', 1, '', (SELECT id FROM provisioning_keys)
FROM generate_series({n}, {n} + 6) AS n
ON CONFLICT (uuid) DO {conflict}
"""
# What a transaction may do to the devices whose uuids begin with `mine`.
STEPS = (
    INSERT.replace("{conflict}", "NOTHING"),
    INSERT.replace("{conflict}", "UPDATE SET mqtt_broker_id = 2, told_source = 'device'"),
    "UPDATE devices SET mqtt_broker_id = 2 WHERE uuid LIKE '{mine}-%' AND id % 3 = {n} % 3",
    "UPDATE devices SET mqtt_broker_id = NULL WHERE uuid LIKE '{mine}-%' AND id % 2 = {n} % 2",
    "UPDATE devices SET fleet_id = 'a' WHERE uuid LIKE '{mine}-%' AND id % 4 = {n} % 4",
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
WRITERS = 3


@pytest.fixture
def connections(database: Database) -> Iterator[list[Connection]]:
    """One that looks, and the writers, each in a transaction of its own."""
    with ExitStack() as exits:
        found = [exits.enter_context(psycopg.connect(database.url("mooring"))) for _ in range(4)]
        found[0].autocommit = True
        found[0].execute(PREPARE)
        yield found


def recounted(connection: Connection) -> tuple[Counter[Any], Counter[Any]]:
    """What there is, and what is counted, both as of one moment; by kind, none of zero."""
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


def test_counts_are_exact_at_any_moment(connections: list[Connection]) -> None:
    looking, *writers = connections
    step = st.tuples(st.integers(0, WRITERS - 1), st.sampled_from(STEPS), st.integers(0, 20))

    @EXAMPLES
    @given(st.lists(step, min_size=1, max_size=25))
    def check(steps: list[tuple[int, str, int]]) -> None:
        for writer in writers:
            writer.rollback()
        looking.execute("TRUNCATE devices")
        for number, statement, n in steps:
            writers[number].execute(statement.format(mine=f"w{number}", n=n).encode())
            devices, counts = recounted(looking)
            assert counts == devices
        for writer in writers:
            writer.commit()
        devices, counts = recounted(looking)
        assert counts == devices

    check()


def test_what_changes_no_kind_is_no_change(connections: list[Connection]) -> None:
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
