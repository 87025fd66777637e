"""The migrations build the indexes that are missing, and block no registration meanwhile."""

import asyncio
import os
import sys

import psycopg

from migrations.indexes import INDEXES
from tests.stack import Database, Stack

FOUND = "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON indexrelid = pg_class.oid"


def built(database: Database) -> set[str]:
    return {name for name, is_valid in database.execute(FOUND) if is_valid}


async def test_missing_indexes_are_built_while_devices_register(stack: Stack) -> None:
    database = stack.database
    assert built(database) >= set(INDEXES)
    for name in INDEXES:
        database.execute(f"DROP INDEX {name}")
    # What a process leaves that was killed while it built.
    database.execute("CREATE INDEX devices_type ON devices (device_type)")
    with psycopg.connect(
        database.server.superuser_url(database.name), autocommit=True
    ) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'devices_type'::regclass"
        )
    assert not built(database) & set(INDEXES)
    url = database.url("mooring")
    with psycopg.connect(url) as reader:
        # The index is built beside a transaction with an older snapshot, and waits for it to end.
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM devices").fetchall()
        builders = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "migrations"),
                env={**os.environ, "MOORING_DATABASE_URL": url},
            )
            for _ in "ab"
        ]
        while "devices_name" not in {name for name, _ in database.execute(FOUND)}:
            await asyncio.sleep(0.05)
        response = await stack.register("while-it-is-built")
        assert response.status_code == 201, response.text
        assert "devices_name" not in built(database)
    async with asyncio.timeout(60):
        assert [await builder.wait() for builder in builders] == [0, 0]
    assert built(database) >= set(INDEXES)
    assert (await stack.admin("GET", "/devices?search=test%20dev")).json()["items"]
