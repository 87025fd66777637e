"""Reading only the changed rows gives the same as reading everything, whatever has changed."""

import asyncio
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from broker_service.placements.snapshot import Snapshot
from broker_service.placements.store import PlacementStore
from chassis.database import engine_of
from tests.stack import Database

EXAMPLES = settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],  # making an example smaller takes minutes
    suppress_health_check=list(HealthCheck),
)

PREPARE = """
TRUNCATE mqtt_broker_config, certificates, fleets CASCADE;
INSERT INTO certificates (name, kind, pem, fingerprint_sha256, subject, issuer, not_before,
                          not_after)
SELECT 'c', kind, 'pem ' || n, n, '', '', now(), now()
FROM generate_series(1, 4) AS n, unnest(ARRAY['ca', 'client']) AS kind;
INSERT INTO mqtt_broker_config (id, name, host, port, is_default, ca_certificate_id)
SELECT n, 'broker ' || n, 'h', n, n = 1,
       (SELECT id FROM certificates WHERE kind = 'ca' ORDER BY id LIMIT 1 OFFSET n % 4)
FROM generate_series(1, 5) AS n;
INSERT INTO fleets (id, name, is_restricted, mqtt_broker_id) SELECT 'f' || n, '', n = 1, n
FROM generate_series(1, 5) AS n;
INSERT INTO fleet_brokers VALUES ('f1', 1), ('f1', 2);
"""
# `{n}` and `{m}` are from 1 to 9, so they name what is there and what is not.
STEPS = (
    (
        "INSERT INTO mqtt_broker_config (id, name, host, port) VALUES ({n}, 'broker {n}', 'h', {m})"
        " ON CONFLICT DO NOTHING"
    ),
    "UPDATE mqtt_broker_config SET port = {m} WHERE id = {n}",
    "UPDATE mqtt_broker_config SET is_active = NOT is_active WHERE id = {n} AND NOT is_default",
    "UPDATE mqtt_broker_config SET is_default = false WHERE is_default",
    (
        "UPDATE mqtt_broker_config SET is_default = false WHERE is_default;"
        "UPDATE mqtt_broker_config SET is_default = true WHERE id = {n} AND is_active"
    ),
    (
        "UPDATE mqtt_broker_config SET ca_certificate_id = (SELECT id FROM certificates"
        " WHERE kind = 'ca' ORDER BY id LIMIT 1 OFFSET {m} % 4) WHERE id = {n}"
    ),
    (
        "UPDATE mqtt_broker_config SET client_certificate_id = (SELECT min(id) FROM certificates"
        " WHERE kind = 'client'), ca_certificate_id = NULL WHERE id = {n}"
    ),
    (
        "DELETE FROM mqtt_broker_config WHERE id = {n} AND NOT is_default AND id NOT IN"
        " (SELECT broker_id FROM fleet_brokers UNION SELECT mqtt_broker_id FROM fleets"
        " WHERE mqtt_broker_id IS NOT NULL)"
    ),
    "UPDATE certificates SET pem = pem || '{m}' WHERE id % 8 = {n}",
    "UPDATE certificates SET pem = pem || '{m}'",
    "INSERT INTO fleets (id, name) VALUES ('f{n}', '') ON CONFLICT DO NOTHING",
    (
        "UPDATE fleets SET mqtt_broker_id = (SELECT id FROM mqtt_broker_config WHERE id = {m})"
        " WHERE id = 'f{n}'"
    ),
    "UPDATE fleets SET is_restricted = NOT is_restricted WHERE id = 'f{n}'",
    (
        "UPDATE fleets SET id = 'f{m}' WHERE id = 'f{n}'"
        " AND NOT EXISTS (SELECT FROM fleets WHERE id = 'f{m}')"
        " AND NOT EXISTS (SELECT FROM fleet_brokers WHERE fleet_id = 'f{n}')"
    ),
    "DELETE FROM fleets WHERE id = 'f{n}'",
    (
        "INSERT INTO fleet_brokers SELECT fleets.id, mqtt_broker_config.id"
        " FROM fleets, mqtt_broker_config WHERE fleets.id = 'f{n}' AND mqtt_broker_config.id = {m}"
        " ON CONFLICT DO NOTHING"
    ),
    "DELETE FROM fleet_brokers WHERE broker_id = {n}",
    "TRUNCATE fleet_brokers",
    "TRUNCATE fleets CASCADE",
    (
        "INSERT INTO fleets (id, name) SELECT 'many-' || x, '' FROM generate_series(1, 101) AS x"
        " ON CONFLICT DO NOTHING"
    ),
    "DELETE FROM fleets WHERE id LIKE 'many-%'",
    # The log of changes is pruned, emptied, or lacks an entry.
    "DELETE FROM placement_changes WHERE id <= (SELECT max(id) - {n} FROM placement_changes)",
    "DELETE FROM placement_changes WHERE id = (SELECT max(id) FROM placement_changes)",
    "TRUNCATE placement_changes",
    "UPDATE placement_version SET version = gen_random_uuid()",
)
BEGIN, COMMIT, ROLLBACK = "BEGIN", "COMMIT", "ROLLBACK"
REPLICAS = ("one", "two")


def store_of(database: Database) -> PlacementStore:
    unused: Any = None
    return PlacementStore(engine_of(database.url("mooring_broker")), unused, unused)


def test_reading_changed_rows_gives_what_reading_everything_gives(database: Database) -> None:
    step = st.tuples(
        st.sampled_from([*STEPS, BEGIN, COMMIT, ROLLBACK]),
        st.integers(1, 9),
        st.integers(1, 9),
        st.sampled_from(["", "", *REPLICAS]),
    )
    url = database.url("mooring")
    with asyncio.Runner() as runner, psycopg.connect(url, autocommit=True) as writer:
        store = store_of(database)

        def read(before: Snapshot) -> Snapshot:
            after = before.with_touched(runner.run(store.read(before.version)))
            assert after == Snapshot.of(runner.run(store.read()))
            return after

        @EXAMPLES
        @given(st.lists(step, min_size=20, max_size=40))
        def check(steps: list[tuple[str, int, int, str]]) -> None:
            writer.rollback()
            writer.execute(PREPARE)
            snapshots = dict.fromkeys(REPLICAS, Snapshot.of(runner.run(store.read())))
            for what, n, m, replica in steps:
                if what.startswith("TRUNCATE"):
                    writer.commit()  # readers wait until it is committed
                writer.execute(what.format(n=n, m=m).encode())
                if replica:
                    snapshots[replica] = read(snapshots[replica])
            writer.commit()
            for snapshot in snapshots.values():
                read(snapshot)

        check()
        runner.run(store._engine.dispose())
