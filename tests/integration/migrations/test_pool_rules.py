"""What the database announces about pools, who may write them, and what it refuses."""

import psycopg
import pytest

from tests.integration.migrations.pool_rows import OPERATOR, made_brokers, made_pool
from tests.stack import Database

REGION = "INSERT INTO regions (id, mqtt_broker_id) VALUES ('eu', {one})"
STATE = "INSERT INTO broker_states (broker_id, state) VALUES ({one}, 'down')"
# A statement, its role, and the changes that it announces. The settling of a pool is a second one.
ANNOUNCED: tuple[tuple[str, str, list[tuple[str, str | None]]], ...] = (
    ("INSERT INTO pools (id, name) VALUES (7, 'x')", OPERATOR, [("pool", "7")] * 2),
    ("UPDATE pools SET policy = 'nearest'", OPERATOR, [("pool", "{pool}")] * 2),
    ("UPDATE pools SET is_default = true", OPERATOR, [("pool", "{pool}")] * 2),
    ("DELETE FROM pools", OPERATOR, [("pool", "{pool}")] * 2),
    ("DELETE FROM pool_members WHERE broker_id = {one}", OPERATOR, [("pool", "{pool}")] * 2),
    ("UPDATE pool_members SET weight = 1", OPERATOR, [("pool", "{pool}")] * 2),
    (
        "INSERT INTO pool_members (pool_id, broker_id) VALUES ({pool}, {two})",
        OPERATOR,
        [("pool", "{pool}")] * 2,
    ),
    ("UPDATE pool_members SET weight = weight WHERE false", OPERATOR, []),
    ("TRUNCATE pool_members", "mooring", [("pool", None)]),
    ("INSERT INTO regions (id) VALUES ('us')", OPERATOR, [("region", "us")]),
    ("UPDATE regions SET latitude = 1, longitude = 1", OPERATOR, [("region", "eu")]),
    ("DELETE FROM regions", OPERATOR, [("region", "eu")]),
    ("TRUNCATE regions", "mooring", [("region", None)]),
    (
        "INSERT INTO broker_states (broker_id) VALUES ({two})",
        "mooring_broker",
        [("state", "{two}")],
    ),
    ("UPDATE broker_states SET is_full = true", "mooring_broker", [("state", "{one}")]),
    ("DELETE FROM broker_states", "mooring_broker", [("state", "{one}")]),
    ("TRUNCATE broker_states", "mooring", [("state", None)]),
    (
        "UPDATE mqtt_broker_config SET backup_broker_id = {two}, capacity = 5 WHERE id = {one}",
        OPERATOR,
        [("broker", "{one}")],
    ),
)


@pytest.mark.parametrize(("statement", "role", "changes"), ANNOUNCED)
def test_every_change_is_announced(
    database: Database, statement: str, role: str, changes: list[tuple[str, str | None]]
) -> None:
    one, two = made_brokers(database, 2)
    pool_id = made_pool(database, {one: 100})
    database.execute(REGION.format(one=one))
    database.execute(STATE.format(one=one))
    database.execute("TRUNCATE placement_changes")
    [(before,)] = database.execute("SELECT version FROM placement_version")
    database.execute(statement.format(pool=pool_id, one=one, two=two), role=role)
    found = database.execute("SELECT kind, ids, version FROM placement_changes ORDER BY id")
    assert [(kind, ids) for kind, ids, _ in found] == [
        (kind, None if key is None else [key.format(pool=pool_id, one=one, two=two)])
        for kind, key in changes
    ]
    [(after,)] = database.execute("SELECT version FROM placement_version")
    assert after == (found[-1][2] if found else before)


WRITES = (
    "INSERT INTO pools (name) VALUES ('x')",
    "UPDATE pools SET name = 'x'",
    "DELETE FROM pools",
    "INSERT INTO pool_members (pool_id, broker_id) VALUES (1, 1)",
    "UPDATE pool_members SET weight = 1",
    "DELETE FROM pool_members",
    "INSERT INTO regions (id) VALUES ('x')",
    "UPDATE regions SET name = 'x'",
    "DELETE FROM regions",
    "INSERT INTO broker_states (broker_id) VALUES (1)",
    "UPDATE broker_states SET state = 'up'",
    "DELETE FROM broker_states",
)
# What an operator may not write: what the database computes, and what the probes find.
COMPUTED = (
    "UPDATE pools SET slots = '{}'",
    "UPDATE pools SET revision = 9",
    "UPDATE pool_members SET pool_id = 2",
    "UPDATE regions SET revision = 9",
    *(statement for statement in WRITES if "broker_states" in statement),
)


@pytest.mark.parametrize("role", ["mooring_registry", "mqtt_reader", "mooring_access"])
def test_other_roles_write_no_pools_and_no_regions(database: Database, role: str) -> None:
    for statement in (*WRITES, *COMPUTED, "SELECT pool_slots('{}', '{}', '{}')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.execute(statement, role=role)


def test_an_operator_does_not_write_what_is_computed_or_probed(database: Database) -> None:
    for statement in COMPUTED:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.execute(statement, role=OPERATOR)


USES = (
    ("INSERT INTO pool_members (pool_id, broker_id) VALUES ({pool}, {used})", "pools=1"),
    ("UPDATE mqtt_broker_config SET backup_broker_id = {used} WHERE id = {one}", "backups=1"),
    ("INSERT INTO regions (id, mqtt_broker_id) VALUES ('eu', {used})", "regions=1"),
)


@pytest.mark.parametrize(("use", "counted"), USES)
def test_a_broker_in_use_is_not_deleted(database: Database, use: str, counted: str) -> None:
    one, used = made_brokers(database, 2)
    pool_id = made_pool(database, {one: 100})
    database.execute(use.format(pool=pool_id, one=one, used=used), role=OPERATOR)
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
        database.execute("DELETE FROM mqtt_broker_config WHERE id = %s", used)
    assert refused.value.diag.message_primary == "broker 'broker 2' is in use"
    assert refused.value.diag.constraint_name == "used_is_kept"
    assert counted in str(refused.value.diag.message_detail).split()
    assert f"POST /api/v1/brokers/{used}/move" in str(refused.value.diag.message_hint)


def test_a_pool_in_use_is_not_deleted(database: Database) -> None:
    pool_id = made_pool(database, {})
    database.execute("INSERT INTO fleets (id, name, pool_id) VALUES ('f', '', %s)", pool_id)
    database.execute("INSERT INTO regions (id, pool_id) VALUES ('eu', %s)", pool_id)
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
        database.execute("DELETE FROM pools", role=OPERATOR)
    assert refused.value.diag.message_primary == "pool 'main' is in use"
    assert refused.value.diag.message_detail == "devices=0 fleets=1 keys=0 regions=1"
    database.execute("DELETE FROM fleets")
    database.execute("DELETE FROM regions")
    database.execute("UPDATE pools SET is_default = true", role=OPERATOR)
    with pytest.raises(psycopg.errors.RestrictViolation, match="which cannot be deleted"):
        database.execute("DELETE FROM pools", role=OPERATOR)


REFUSED = (
    "INSERT INTO pools (name) VALUES ('main')",
    "INSERT INTO pools (name) VALUES ('')",
    "UPDATE pools SET policy = 'random'",
    "UPDATE pools SET rebalance_percent = 10",
    "UPDATE pools SET rebalance_percent = 101, rebalance_salt = 'x'",
    "INSERT INTO pools (name, is_default) VALUES ('a', true), ('b', true)",
    "UPDATE pool_members SET weight = -1",
    "UPDATE pool_members SET weight = 10001",
    "UPDATE pool_members SET priority = 0",
    "INSERT INTO pool_members (pool_id, broker_id) VALUES ({pool}, {one})",
    "INSERT INTO pool_members (pool_id, broker_id) VALUES ({pool}, 99)",
    "INSERT INTO pool_members (pool_id, broker_id) VALUES (99, {one})",
    "INSERT INTO regions (id) VALUES ('a/b')",
    "INSERT INTO regions (id, latitude) VALUES ('x', 1)",
    "INSERT INTO regions (id, latitude, longitude) VALUES ('x', 91, 1)",
    "INSERT INTO regions (id, mqtt_broker_id, pool_id) VALUES ('x', {one}, {pool})",
    "UPDATE mqtt_broker_config SET backup_broker_id = id",
    "UPDATE mqtt_broker_config SET capacity = -1",
)


@pytest.mark.parametrize("statement", REFUSED)
def test_an_invalid_row_is_refused(database: Database, statement: str) -> None:
    [one] = made_brokers(database, 1)
    pool_id = made_pool(database, {one: 100})
    with pytest.raises(psycopg.errors.IntegrityError):
        database.execute(statement.format(pool=pool_id, one=one), role=OPERATOR)


def test_a_region_keeps_its_id_and_counts_its_changes(database: Database) -> None:
    database.execute("INSERT INTO regions (id) VALUES ('eu')", role=OPERATOR)
    database.execute("UPDATE regions SET name = 'Europe'", role=OPERATOR)
    database.execute("UPDATE regions SET name = 'Europe'", role=OPERATOR)
    assert database.execute("SELECT name, revision FROM regions") == [("Europe", 2)]
    with pytest.raises(psycopg.errors.CheckViolation, match="a region keeps its id"):
        database.execute("UPDATE regions SET id = 'us'")
