"""Under synchronous replication nothing is acknowledged that the next leader may lack."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from tests.integration.registry_service.provisioning.test_read_only import stack  # noqa: F401
from tests.stack import PATIENCE_S, Stack
from tests.standby import standing_by


def demand_standby(running: Stack, name: str) -> None:
    """Commits wait for the standby `name`, which does not exist; for none where it is empty."""
    server = running.database.server
    with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute("SHOW synchronous_standby_names").fetchone() != (name,):
            pass


@pytest.mark.usefixtures("stack")
async def test_a_commit_that_no_standby_confirms_is_not_acknowledged(stack: Stack) -> None:  # noqa: F811
    assert (await stack.register("before")).status_code == 201
    demand_standby(stack, "absent")
    # The wait is cancelled by the statement timeout: the row is committed, on the leader alone.
    assert (await stack.register("one")).status_code == 503
    rows = "SELECT count(*) FROM devices WHERE uuid = 'one'"
    assert stack.database.execute(rows) == [(1,)]
    # Repeated, it is read from that row.
    assert (await stack.register("one")).status_code == 503
    # What is only asked for is answered.
    assert (await stack.connection("before")).status_code == 200
    demand_standby(stack, "")
    # Commits wait until the checkpointer has read it too, which no session can see.
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
        # Acknowledged from a row that the standby has; but nobody can tell.
        assert (await stack.register("one")).status_code == 503
        assert (await stack.register("two")).status_code == 503
        assert (await stack.http.post(path, headers=headers)).status_code == 503
        assert (await stack.connection("one")).status_code == 200
        await asyncio.to_thread(standby.start)
        assert (await stack.register("one")).status_code == 200
        assert (await stack.register("two")).status_code in (200, 201)
