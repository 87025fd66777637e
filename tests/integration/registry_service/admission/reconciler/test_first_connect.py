"""A device that connects as soon as it is answered is admitted by its managed broker."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import httpx2
import pytest

from tests.broker_versions import Version
from tests.dynamic_security import DynamicMosquitto, filled
from tests.integration.registry_service.admission.reconciler.test_reconciler import (
    PATIENCE_S,
    is_let_in,
    managed,
    reconciling,
    until_let_in,
    until_said,
    until_state,
)
from tests.stack import Stack

KEPT = pytest.mark.every_version("Mooring keeps its list of clients")
DEVICES = 40
# It takes a Mosquitto seconds to create so many clients.
FLEET = 600
# The longest that an answer takes which waits for no broker, on a machine that runs other tests.
AT_ONCE_S = 1.2


@pytest.fixture
def broker(tmp_path: Path, mosquitto_version: Version) -> Iterator[DynamicMosquitto]:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with DynamicMosquitto(folder, version=mosquitto_version) as running:
        yield running


def mqtt_of(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code in (200, 201), answer.text
    body = answer.json()
    mqtt: dict[str, Any] = body.get("mqtt", body)
    return mqtt


def login_of(mqtt: dict[str, Any]) -> tuple[str, str]:
    return mqtt["username"], mqtt["password"]


async def rotated(stack: Stack, uuid: str) -> dict[str, Any]:
    answer = await stack.http.post(
        f"/api/v1/device/{uuid}/credentials/rotate",
        headers={"Authorization": "Bearer test-api-key"},
    )
    return mqtt_of(answer)


def lease_is_held_by_a_frozen_process(stack: Stack) -> None:
    """A process holds the lease, and does nothing."""
    stack.database.execute(
        "INSERT INTO leases (name, holder, expires_at)"
        " VALUES ('enforcement', 'frozen', now() + interval '1 hour')"
    )


async def timed(answer: Any) -> tuple[float, Any]:
    begun = asyncio.get_running_loop().time()
    result = await answer
    return asyncio.get_running_loop().time() - begun, result


@KEPT
async def test_every_first_connect_succeeds(stack: Stack, broker: DynamicMosquitto) -> None:
    await managed(stack, broker)
    async with reconciling(stack):
        await until_state(stack, "clients", 0)

        async def arrives(uuid: str) -> tuple[bool, bool]:
            mqtt = mqtt_of(await stack.register(uuid))
            return mqtt.get("ready", True), await is_let_in(broker, login_of(mqtt))

        found = await asyncio.gather(*(arrives(f"d{number}") for number in range(DEVICES)))
        assert found == [(True, True)] * DEVICES
        # A rotated password works at once too.
        for number in range(3):
            mqtt = await rotated(stack, f"d{number}")
            assert "ready" not in mqtt
            assert await is_let_in(broker, login_of(mqtt))


async def test_a_device_that_moves_to_a_managed_broker_is_admitted_at_once(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    elsewhere = mqtt_of(await stack.register("mover"))
    there = await stack.create_broker(
        "There",
        host="127.0.0.1",
        port=broker.port,
        management="mosquitto",
        username=broker.settings.username,
        password=broker.settings.password,
    )
    async with reconciling(stack):
        # No broker was managed before, and the test does not wait until the reconciler knows this
        # one.
        await stack.admin("PATCH", "/devices/mover", json={"mqtt_broker_id": there})
        mqtt = mqtt_of(await stack.connection("mover"))
        assert mqtt["broker"] != elsewhere["broker"]
        assert "ready" not in mqtt
        assert await is_let_in(broker, login_of(mqtt))


async def test_an_answer_waits_a_bounded_time_for_a_broker_without_progress(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    lease_is_held_by_a_frozen_process(stack)
    took_s, answer = await timed(stack.register("late"))
    mqtt = mqtt_of(answer)
    assert 1.4 < took_s < 4
    assert mqtt["ready"] is False
    assert 1 <= mqtt["refreshAfter"] <= 10
    assert not await is_let_in(broker, login_of(mqtt))
    unready = await stack.connection("late")
    assert unready.json()["ready"] is False
    # The answer stays the same when the broker is ready.
    stack.database.execute("DELETE FROM leases")
    async with reconciling(stack):
        await until_let_in(broker, login_of(mqtt), is_in=True)
        ready = await stack.connection("late")
        assert "ready" not in ready.json()
        assert ready.json()["generation"] == unready.json()["generation"] == mqtt["generation"]
        assert ready.headers["etag"] == unready.headers["etag"]
        assert ready.json()["refreshAfter"] > mqtt["refreshAfter"]
        again = await stack.connection("late", **{"If-None-Match": unready.headers["etag"]})
        assert again.status_code == 304


async def test_a_device_whose_broker_is_not_ready_gets_no_304(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    await stack.register("early")
    first = await stack.connection("early")
    again = await stack.connection("early", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.json()["ready"]) == (200, False)


async def test_no_answer_waits_where_no_process_manages_brokers(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    took_s, answer = await timed(stack.register("unmanaged"))
    assert took_s < AT_ONCE_S
    assert mqtt_of(answer)["ready"] is False


async def test_no_answer_waits_for_a_broker_that_asks(stack: Stack) -> None:
    lease_is_held_by_a_frozen_process(stack)
    for uuid in ("first", "second"):
        took_s, answer = await timed(stack.register(uuid))
        assert took_s < AT_ONCE_S
        assert "ready" not in mqtt_of(answer)


async def test_no_answer_waits_for_a_broker_that_is_known_to_be_down(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    async with reconciling(stack):
        await until_state(stack, "clients", 0)
        broker.stop()
        # The first answer may wait, and shows that the broker is down.
        took_s, answer = await timed(stack.register("first"))
        assert took_s < 4
        assert mqtt_of(answer)["ready"] is False
        await until_said(stack, "no connection")
        took_s, answer = await timed(stack.register("second"))
        assert took_s < AT_ONCE_S
        assert mqtt_of(answer)["ready"] is False


async def test_no_answer_waits_where_nothing_was_changed(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    async with reconciling(stack):
        await until_state(stack, "clients", 0)
        before = mqtt_of(await stack.register("same"))
        assert "ready" not in before
    lease_stays_with_a_stopped_process(stack)
    for asking in (stack.register("same"), stack.connection("same")):
        took_s, answer = await timed(asking)
        assert took_s < AT_ONCE_S
        assert "ready" not in mqtt_of(answer)


def lease_stays_with_a_stopped_process(stack: Stack) -> None:
    stack.database.execute("UPDATE leases SET expires_at = now() + interval '1 hour'")


@KEPT
async def test_a_client_that_the_broker_has_lost_is_not_held(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    async with reconciling(stack, drift_check_s=0.2):
        await until_state(stack, "clients", 0)
        mqtt = mqtt_of(await stack.register("lost"))
        await until_held(stack, ["device_lost"])
        broker.stop()
        broker.file.write_text(filled([]))
        broker.start()
        await until_let_in(broker, login_of(mqtt), is_in=True)
    # The device is disabled while no process manages the broker; the next one corrects the table.
    stack.database.execute("UPDATE devices SET is_active = false")
    async with reconciling(stack):
        await until_held(stack, [])


async def test_nothing_is_known_to_be_held_after_a_brokers_host_changes(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    async with reconciling(stack):
        await until_state(stack, "clients", 0)
        await stack.register("one")
        await until_held(stack, ["device_one"])
    await managed(stack, broker, host="localhost")
    assert held(stack) == []


async def test_the_table_of_held_clients_contains_no_password_or_hash(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    async with reconciling(stack):
        await until_state(stack, "clients", 0)
        mqtt = mqtt_of(await stack.register("one"))
        await until_held(stack, ["device_one"])
    [(row,)] = stack.database.execute("SELECT to_jsonb(c) FROM driven_clients AS c")
    [(kept,)] = stack.database.execute("SELECT to_jsonb(d) FROM devices AS d")
    assert mqtt["password"] not in json.dumps(row)
    assert kept["mqtt_password_hash"] not in json.dumps(row)
    assert kept["credential_salt"] not in json.dumps(row)


def held(stack: Stack) -> list[str]:
    rows = stack.database.execute("SELECT username FROM driven_clients ORDER BY username")
    return [username for (username,) in rows]


async def until_held(stack: Stack, usernames: list[str]) -> None:
    """On a busy machine a device may be answered before its broker holds it."""
    async with asyncio.timeout(PATIENCE_S):
        while held(stack) != usernames:
            await asyncio.sleep(0.02)


async def test_a_revocation_does_not_wait_until_a_whole_fleet_is_created(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    answers = await asyncio.gather(*(stack.register(f"d{n:03}") for n in range(FLEET)))
    first = login_of(mqtt_of(answers[0]))
    async with reconciling(stack):
        await until_let_in(broker, first, is_in=True)
        async with broker.client(*first) as client:
            await stack.admin("PATCH", "/devices/d000", json={"is_active": False})
            with pytest.raises(aiomqtt.MqttError):
                await asyncio.wait_for(anext(client.messages), PATIENCE_S)
            assert len(held(stack)) < FLEET - 1
        # The other clients are created after that.
        count = len(held(stack))
        async with asyncio.timeout(PATIENCE_S):
            while len(held(stack)) == count:
                await asyncio.sleep(0.01)
        assert "device_d000" not in held(stack)
