"""With synchronous replication, nothing is acknowledged that the next leader may lack."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from tests.integration.registry_service.provisioning.test_read_only import stack  # noqa: F401
from tests.stack import PATIENCE_S, Stack
from tests.standby import standing_by

# A second PostgreSQL, and commits that wait until they are given up.
pytestmark = pytest.mark.heavy


def require_standby(running: Stack, name: str) -> None:
    """Makes commits wait for the standby `name`, which does not exist; for none if it is empty."""
    server = running.database.server
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute("SHOW synchronous_standby_names").fetchone() != (name,):
            pass


@pytest.mark.usefixtures("stack")
async def test_a_commit_that_no_standby_confirms_is_not_acknowledged(stack: Stack) -> None:  # noqa: F811
    assert (await stack.register("before")).status_code == 201
    require_standby(stack, "absent")
    # The statement timeout cancels the wait: the row is committed, but only on the leader.
    assert (await stack.register("one")).status_code == 503
    rows = "SELECT count(*) FROM devices WHERE uuid = 'one'"
    assert stack.database.execute(rows) == [(1,)]
    # When the device tries again, the answer would come from that row.
    assert (await stack.register("one")).status_code == 503
    # Requests that only read are answered.
    assert (await stack.connection("before")).status_code == 200
    require_standby(stack, "")
    # Commits wait until the checkpointer has read the setting too, which no session can see.
    async with asyncio.timeout(PATIENCE_S):
        while (await stack.register("one")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_a_standby_that_is_stopped_and_starts_again(stack: Stack, tmp_path: Path) -> None:  # noqa: F811
    headers = {"Authorization": "Bearer test-api-key"}
    path = "/api/v1/device/one/credentials/rotate"
    async with standing_by(stack.database.server, tmp_path / "standby") as standby:
        assert (await stack.register("one")).status_code == 201
        assert (await stack.register("one")).status_code == 200
        standby.stop()
        # The standby has this row, but the registry cannot know that.
        assert (await stack.register("one")).status_code == 503
        assert (await stack.register("two")).status_code == 503
        assert (await stack.http.post(path, headers=headers)).status_code == 503
        assert (await stack.connection("one")).status_code == 200
        await asyncio.to_thread(standby.start)
        assert (await stack.register("one")).status_code == 200
        assert (await stack.register("two")).status_code in (200, 201)
