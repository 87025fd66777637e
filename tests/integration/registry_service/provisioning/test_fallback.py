"""When a part is down, the answer is as promised, and no row is written incompletely."""

import asyncio
import contextlib
from collections.abc import Iterator

import psycopg
import pytest
from mooring.broker.v1 import resolution_pb2
from prometheus_client import REGISTRY
from psycopg import sql

from chassis.errors import Unavailable
from tests.stack import Stack


def stopgaps(source: str) -> float:
    return REGISTRY.get_sample_value("mooring_registry_stopgaps_total", {"source": source}) or 0.0


@contextlib.contextmanager
def shut_out(stack: Stack, role: str) -> Iterator[None]:
    """Makes the database refuse `role`, and ends its connections."""
    with psycopg.connect(stack.database.server.superuser_url(), autocommit=True) as connection:
        name = sql.Identifier(role)
        connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(name))
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role]
        )
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(name))


async def caught_up(stack: Stack) -> None:
    """Returns when the broker service has read the rows that the test has made."""
    [(version,)] = stack.database.execute("SELECT version::text FROM placement_version")
    request = resolution_pb2.ResolveBrokersRequest()
    async with asyncio.timeout(10):
        while version != (
            (await stack.broker.resolution("ResolveBrokers", request)).placement_version
        ):
            await asyncio.sleep(0.02)


def change_brokers(stack: Stack) -> None:
    """Changes the version of the brokers, so that earlier resolutions may be out of date."""
    stack.database.execute("UPDATE mqtt_broker_config SET description = 'changed'")


async def test_without_the_broker_service_a_resolution_proved_current_is_no_stopgap(
    stack: Stack,
) -> None:
    before = (await stack.register("before")).json()["mqtt"]
    await stack.stop_broker_service()
    made = await stack.register("after")
    again = await stack.register("before")
    assert (made.status_code, again.status_code) == (201, 200)
    for mqtt in (
        made.json()["mqtt"],
        again.json()["mqtt"],
        (await stack.connection("after")).json(),
    ):
        assert (mqtt["broker"], mqtt["source"]) == (before["broker"], "default")
        assert mqtt["refreshAfter"] == 3600
        assert "stale" not in mqtt


async def test_a_resolution_proved_by_the_registry_is_not_stale(
    stack: Stack,
) -> None:
    await caught_up(stack)
    with shut_out(stack, "mooring_broker"):
        async with asyncio.timeout(10):
            while await stack.broker.is_serving("database"):
                await asyncio.sleep(0.02)
        assert "stale" not in (await stack.register("one")).json()["mqtt"]


async def test_without_the_broker_service_a_new_device_gets_the_remembered_broker(
    stack: Stack,
) -> None:
    await stack.register("before")
    count = stopgaps("memory")
    await stack.stop_broker_service()
    change_brokers(stack)
    response = await stack.register("after")
    assert response.status_code == 201
    mqtt = response.json()["mqtt"]
    assert (mqtt["broker"], mqtt["source"]) == ("mqtt://localhost:5883", "default")
    assert (mqtt["stale"], mqtt["refreshAfter"]) == (True, 60)
    assert stopgaps("memory") == count + 1
    assert (await stack.http.get("/readyz")).json()["status"] == "degraded"

    await stack.start_broker_service()
    async with asyncio.timeout(10):
        while "stale" in (mqtt := (await stack.connection("after")).json()):
            await asyncio.sleep(0.05)
    assert mqtt["refreshAfter"] == 3600


async def test_without_a_remembered_broker_a_new_device_gets_the_environments(stack: Stack) -> None:
    count = stopgaps("environment")
    await stack.stop_broker_service()
    mqtt = (await stack.register("one")).json()["mqtt"]
    assert (mqtt["broker"], mqtt["source"]) == ("mqtt://mosquitto:1883", "environment")
    assert "brokerConfig" not in mqtt
    assert (mqtt["stale"], mqtt["refreshAfter"]) == (True, 60)
    assert stopgaps("environment") == count + 1


async def test_a_stopgap_never_overrides_a_pin_a_fleets_rule_or_a_restriction(
    stack: Stack,
) -> None:
    broker_id = await stack.create_broker("Other")
    await stack.create_fleet("placed", mqtt_broker_id=broker_id)
    response = await stack.admin(
        "POST", "/fleets", json={"id": "restricted", "allowed_broker_ids": [broker_id]}
    )
    assert response.status_code == 201
    keys = [
        await stack.create_key(default_broker_id=broker_id),
        await stack.create_key(fleet_id="placed"),
        await stack.create_key(fleet_id="restricted"),
    ]
    await stack.stop_broker_service()
    count = stopgaps("refused")
    for n, key in enumerate(keys):
        refused = await stack.register(f"d{n}", key=key)
        assert (refused.status_code, refused.json()["reason"]) == (503, "BROKER_UNDECIDED")
        assert int(refused.headers["Retry-After"]) >= 1
    assert stopgaps("refused") == count + 3
    assert stack.database.execute("SELECT count(*) FROM devices") == [(0,)]
    query = "SELECT sum(devices_provisioned)::int FROM provisioning_keys"
    assert stack.database.execute(query) == [(0,)]


async def test_a_pin_that_was_seen_before_is_remembered(stack: Stack) -> None:
    broker_id = await stack.create_broker("Pinned", host="pinned.example.com")
    key = await stack.create_key(default_broker_id=broker_id)
    await stack.register("before", key=key)
    await stack.stop_broker_service()
    change_brokers(stack)
    mqtt = (await stack.register("after", key=key)).json()["mqtt"]
    assert mqtt["broker"] == "mqtt://pinned.example.com:1883"
    assert (mqtt["source"], mqtt["stale"]) == ("device", True)


async def test_the_broker_service_uses_its_snapshot_without_its_database(
    stack: Stack,
) -> None:
    await caught_up(stack)
    with shut_out(stack, "mooring_broker"):
        async with asyncio.timeout(10):
            while await stack.broker.is_serving("database"):
                await asyncio.sleep(0.02)
        assert await stack.broker.is_serving()
        change_brokers(stack)
        response = await stack.register("one")
        assert response.status_code == 201
        mqtt = response.json()["mqtt"]
        assert (mqtt["source"], mqtt["stale"]) == ("default", True)
        assert (await stack.http.get("/readyz")).json()["status"] == "degraded"
        # The service cannot know whether the device has a pin, and a guess could override it.
        with pytest.raises(Unavailable):
            await stack.broker.resolution(
                "ResolveBroker", resolution_pb2.ResolveBrokerRequest(device_uuid="one")
            )
    async with asyncio.timeout(10):
        while not await stack.broker.is_serving("database"):
            await asyncio.sleep(0.02)
    assert "stale" not in (await stack.connection("one")).json()


async def test_without_the_registrys_database_nothing_is_written(stack: Stack) -> None:
    before = (await stack.register("before")).json()
    with shut_out(stack, "mooring_registry"):
        for response in (await stack.register("during"), await stack.connection("before")):
            assert response.status_code == 503
            # The reason is the registry's, or the gateway's once the registry is NOT_SERVING.
            assert response.json()["reason"] in ("DATABASE_UNAVAILABLE", "UNAVAILABLE")
            assert int(response.headers["Retry-After"]) >= 1
        async with asyncio.timeout(10):
            while (await stack.http.get("/readyz")).status_code != 503:
                await asyncio.sleep(0.02)
        assert (await stack.http.get("/healthz")).status_code == 200
    assert stack.database.execute("SELECT uuid FROM devices") == [("before",)]
    async with asyncio.timeout(10):
        while (await stack.http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)
    assert (await stack.register("before")).json() == before
    assert (await stack.register("during")).status_code == 201
