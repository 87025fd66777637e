"""A server that may not write, as after a failover, is like a lost connection: 503, not 500."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import migrations
from chassis.database import engine_of
from chassis.errors import Unavailable
from local.postgres import Postgres, prepare
from registry_service.admission.change_store import ChangeStore
from registry_service.audit.sealing.store import SealStore
from registry_service.bulk.device_counts.store import DeviceCountStore
from registry_service.bulk.jobs.work_store import WorkStore
from tests.stack import ROLES, Database, Stack, started


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """The services on a PostgreSQL of their own, which tests can make read-only."""
    password = secrets.token_urlsafe()
    with Postgres(tmp_path / "postgres") as server:
        owner_url = prepare(server, password)
        migrations.upgrade(owner_url)
        with psycopg.connect(owner_url, autocommit=True) as connection:
            for role in ROLES:
                connection.execute(
                    sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(role), password
                    )
                )
        async with started(Database(server, "mooring", password), tmp_path) as running:
            yield running


def set_read_only(stack: Stack, is_so: bool) -> None:
    """Sets it for all sessions, also open ones; returns when a new session has the setting."""
    value = "on" if is_so else "off"
    with psycopg.connect(stack.database.server.superuser_url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute("SHOW default_transaction_read_only").fetchone() != (value,):
            pass


def sessions(stack: Stack) -> set[int]:
    """The ids of the server processes for the services' pools."""
    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE usename LIKE 'mooring_%' AND application_name <> 'mooring listener'"
    )
    with psycopg.connect(stack.database.server.superuser_url(), autocommit=True) as connection:
        return {row[0] for row in connection.execute(query.encode())}


async def test_writes_are_503_until_the_server_writes_again(stack: Stack) -> None:
    assert (await stack.register("one")).status_code == 201
    headers = {"Authorization": "Bearer test-api-key"}

    async def rotated() -> int:
        path = "/api/v1/device/one/credentials/rotate"
        answer = await stack.http.post(path, headers=headers)
        return answer.status_code

    async def asked() -> list[int]:
        broker = f"/brokers/{stack.default_broker_id}"
        made = {"name": "x", "host": "h", "port": 1}
        answers = [
            await stack.register("two"),
            await stack.admin("PATCH", "/devices/one", json={"device_name": "other"}),
            await stack.admin("PATCH", "/fleets/demo", json={"name": "other"}),
            await stack.admin("PATCH", broker, json={"description": "other"}),
            await stack.admin("POST", "/brokers", json=made),
            await stack.admin("DELETE", "/devices/nobody"),
        ]
        assert all(
            "retry-after" in answer.headers for answer in answers if answer.status_code == 503
        )
        return [answer.status_code for answer in answers]

    assert await rotated() == 200
    set_read_only(stack, True)
    assert await asked() == [503] * 6
    assert await rotated() == 503
    # Requests that only read are served.
    assert (await stack.connection("one")).status_code == 200
    set_read_only(stack, False)
    assert await asked() == [201, 200, 200, 200, 201, 404]
    assert await rotated() == 200


async def test_a_registration_waits_until_the_server_writes(stack: Stack) -> None:
    await stack.register("one")
    set_read_only(stack, True)
    registering = asyncio.create_task(stack.register("two"))
    async with asyncio.timeout(5):
        refused = sessions(stack)
        # Each refused attempt ends its session.
        while refused <= sessions(stack) and not registering.done():
            await asyncio.sleep(0.01)
    assert not registering.done()
    set_read_only(stack, False)
    assert (await registering).status_code == 201


@pytest.mark.parametrize("role", ["mooring_registry", "mooring_sealer"])
async def test_background_work_on_a_read_only_server_is_unavailable(
    stack: Stack, role: str
) -> None:
    engine = engine_of(stack.database.url(role), pool_size=1)
    works: dict[str, list[Callable[[], Awaitable[object]]]] = {
        "mooring_registry": [
            lambda: WorkStore(engine).lease.take("tests"),
            ChangeStore(engine).forget,
            lambda: DeviceCountStore(engine).fold(1),
        ],
        "mooring_sealer": [lambda: SealStore(engine).lease.take("tests")],
    }
    set_read_only(stack, True)
    try:
        for work in works[role]:
            with pytest.raises(Unavailable):
                await work()
    finally:
        set_read_only(stack, False)
        await engine.dispose()
