"""The history of pools: each transaction is one revision, by whatever client."""

import threading
from typing import Any

import psycopg
import pytest

from domain.slots import settled
from tests.integration.migrations.pool_rows import (
    ADD,
    OPERATOR,
    history_of,
    made_brokers,
    made_pool,
    slots_of,
)
from tests.stack import Database

WEIGH = "UPDATE pool_members SET weight = %s WHERE pool_id = %s AND broker_id = %s"
PATIENCE_S = 20


def revision_of(database: Database, pool_id: int) -> int:
    [(revision,)] = database.execute("SELECT revision FROM pools WHERE id = %s", pool_id)
    return int(revision)


def member(broker_id: int, weight: int, priority: int = 1) -> dict[str, int]:
    return {"broker_id": broker_id, "weight": weight, "priority": priority}


def test_a_transaction_is_one_revision_and_one_line(database: Database) -> None:
    one, two = made_brokers(database, 2)
    pool_id = made_pool(database, {one: 100, two: 50})
    with psycopg.connect(database.url(OPERATOR)) as connection:
        connection.execute("UPDATE pools SET description = 'all', policy = 'priority'")
        connection.execute("UPDATE pool_members SET priority = 2 WHERE broker_id = %s", [two])
        connection.execute(WEIGH, [30, pool_id, one])
    assert revision_of(database, pool_id) == 2
    first, second = history_of(database, pool_id)
    assert first[:4] == (1, "created", OPERATOR, True)
    assert second[:4] == (2, "updated", OPERATOR, True)
    assert first[4] == {
        "id": pool_id,
        "name": "main",
        "description": "",
        "policy": "weighted",
        "is_sticky": True,
        "is_default": False,
        "rebalance_percent": None,
        "rebalance_salt": None,
        "members": [member(one, 100), member(two, 50)],
    }
    assert second[4] == {
        **first[4],
        "description": "all",
        "policy": "priority",
        "members": [member(one, 30), member(two, 50, 2)],
    }


def test_what_changes_nothing_has_no_line(database: Database) -> None:
    [one] = made_brokers(database, 1)
    pool_id = made_pool(database, {one: 100})
    database.execute("UPDATE pools SET name = name", role=OPERATOR)
    database.execute(WEIGH, 100, pool_id, one, role=OPERATOR)
    with psycopg.connect(database.url(OPERATOR)) as connection:
        connection.execute(WEIGH, [1, pool_id, one])
        connection.rollback()
        connection.execute("INSERT INTO pools (id, name) VALUES (77, 'short-lived')")
        connection.execute("DELETE FROM pools WHERE id = 77")
    assert revision_of(database, pool_id) == 1
    assert len(history_of(database, pool_id)) == 1
    assert history_of(database, 77) == []


def test_a_deleted_pool_keeps_its_history_and_its_id_can_be_used_again(
    database: Database,
) -> None:
    one, two = made_brokers(database, 2)
    pool_id = made_pool(database, {one: 100, two: 100})
    database.execute("DELETE FROM pools WHERE id = %s", pool_id, role=OPERATOR)
    assert database.execute("SELECT FROM pool_members") == []
    assert [line[:2] for line in history_of(database, pool_id)] == [(1, "created"), (2, "deleted")]
    assert history_of(database, pool_id)[1][4] is None
    with psycopg.connect(database.url(OPERATOR)) as connection:
        connection.execute("INSERT INTO pools (id, name) VALUES (%s, 'main')", [pool_id])
        connection.execute(ADD, [pool_id, two, 100])
    # The revisions go on, so that an old one is never that of another state.
    assert revision_of(database, pool_id) == 3
    assert history_of(database, pool_id)[2][:2] == (3, "created")
    assert set(slots_of(database, pool_id)) == {two}


def test_deleted_and_restored_in_one_transaction_is_one_change(database: Database) -> None:
    one, two = made_brokers(database, 2)
    pool_id = made_pool(database, {one: 100, two: 100})
    with psycopg.connect(database.url(OPERATOR)) as connection:
        connection.execute("DELETE FROM pools")
        connection.execute("INSERT INTO pools (id, name) VALUES (%s, 'other')", [pool_id])
        connection.execute(ADD, [pool_id, one, 100])
    assert [line[:2] for line in history_of(database, pool_id)] == [(1, "created"), (2, "updated")]
    assert revision_of(database, pool_id) == 2
    assert set(slots_of(database, pool_id)) == {one}


def test_an_operator_cannot_act_under_another_name(database: Database) -> None:
    [one] = made_brokers(database, 1)
    pool_id = made_pool(database, {one: 100})
    for role, name, by_sql in ((OPERATOR, OPERATOR, True), ("mooring_broker", "boss", False)):
        with psycopg.connect(database.url(role)) as connection:
            connection.execute("SET mooring.actor = 'boss'")
            connection.execute(WEIGH, [len(role), pool_id, one])
        assert history_of(database, pool_id)[-1][2:4] == (name, by_sql)


def test_concurrent_transactions_on_a_pool_are_one_revision_each(database: Database) -> None:
    """The second waits for the first, and then sees its changes."""
    one, two, three = made_brokers(database, 3)
    pool_id = made_pool(database, {one: 100, two: 100})
    statements: tuple[tuple[str, list[Any]], ...] = (
        (WEIGH, [300, pool_id, two]),
        (ADD, [pool_id, three, 100]),
        ("UPDATE pools SET description = 'new' WHERE id = %s", [pool_id]),
    )
    for statement, values in statements:
        before, slots = history_of(database, pool_id), slots_of(database, pool_id)
        with psycopg.connect(database.url(OPERATOR)) as first:
            first.execute("UPDATE pool_members SET weight = weight + 1 WHERE broker_id = %s", [one])
            other = threading.Thread(
                target=database.execute, args=(statement, *values), kwargs={"role": OPERATOR}
            )
            other.start()
            wait_for_lock(database)
        other.join(PATIENCE_S)
        assert not other.is_alive()
        after = history_of(database, pool_id)
        assert len(after) == len(before) + 2
        assert revision_of(database, pool_id) == after[-1][0]
        for line in after[-2:]:
            slots = settled(slots, {one["broker_id"]: one["weight"] for one in line[4]["members"]})
        assert slots_of(database, pool_id) == slots
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert database.execute(deadlocks) == [(0,)]


def wait_for_lock(database: Database) -> None:
    """Returns when a session of the database waits for another one."""
    with psycopg.connect(database.url("mooring"), autocommit=True) as connection:
        for _ in range(10_000):
            waiting = connection.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND cardinality(pg_blocking_pids(pid)) > 0"
            )
            if waiting.rowcount:
                return
    pytest.fail("no session waits for another")


def test_only_the_database_writes_the_history(database: Database) -> None:
    for statement in (
        "INSERT INTO pool_history VALUES (1, 99, 'deleted', now(), 'x', false)",
        "DELETE FROM pool_history",
        "UPDATE pool_history SET changed_by = 'x'",
        "TRUNCATE pool_history",
    ):
        for role in (OPERATOR, "mooring_broker", "mooring_registry", "mqtt_reader"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.execute(statement, role=role)


def test_after_a_truncation_the_next_change_settles(database: Database) -> None:
    """Only the owner of the tables can truncate them, which the history does not see."""
    one, two = made_brokers(database, 2)
    pool_id = made_pool(database, {one: 100})
    database.execute("TRUNCATE pool_members")
    assert set(slots_of(database, pool_id)) == {one}
    database.execute(ADD, pool_id, two, 100, role=OPERATOR)
    assert set(slots_of(database, pool_id)) == {two}
    assert history_of(database, pool_id)[-1][4]["members"] == [member(two, 100)]
    database.execute("TRUNCATE pools CASCADE")
    database.execute("INSERT INTO pools (id, name) VALUES (%s, 'x')", pool_id, role=OPERATOR)
    assert revision_of(database, pool_id) == 3
    assert slots_of(database, pool_id) == []
