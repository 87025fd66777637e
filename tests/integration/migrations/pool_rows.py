"""Pools in the database, as an operator writes them by SQL."""

from typing import Any

import psycopg

from tests.stack import Database

OPERATOR = "mooring_operator"
ADD = "INSERT INTO pool_members (pool_id, broker_id, weight) VALUES (%s, %s, %s)"


def made_brokers(database: Database, count: int) -> list[int]:
    """The ids of new brokers."""
    rows = database.execute(
        "INSERT INTO mqtt_broker_config (name, host, port)"
        " SELECT 'broker ' || n, 'h', n FROM generate_series(1, %s) AS n RETURNING id",
        count,
    )
    return [broker_id for (broker_id,) in rows]


def made_pool(database: Database, members: dict[int, int]) -> int:
    """The id of a new pool; `members` gives the weight of each broker."""
    with psycopg.connect(database.url(OPERATOR)) as connection:
        made = connection.execute("INSERT INTO pools (name) VALUES ('main') RETURNING id")
        [(pool_id,)] = made.fetchall()
        for broker_id, weight in members.items():
            connection.execute(ADD, [pool_id, broker_id, weight])
    return int(pool_id)


def slots_of(database: Database, pool_id: int) -> list[int]:
    [(slots,)] = database.execute("SELECT slots FROM pools WHERE id = %s", pool_id)
    return list(slots)


def history_of(database: Database, pool_id: int) -> list[Any]:
    """Revision, kind, actor, whether it was by SQL, and the state, oldest first."""
    return database.execute(
        "SELECT revision, kind, changed_by, by_sql, state FROM pool_history"
        " WHERE pool_id = %s ORDER BY revision",
        pool_id,
    )
