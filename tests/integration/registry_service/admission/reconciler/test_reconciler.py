"""A real Mosquitto whose clients the enforcement loop keeps in step."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiomqtt
import pytest

from chassis import loops
from chassis.identities import Identity
from chassis.loops import Loop
from chassis.process import background
from registry_service.admission.reconciler.config import EnforcementConfig
from registry_service.admission.reconciler.loop import enforcement
from tests.broker_versions import Version
from tests.dynamic_security import PASSWORD, USERNAME, DynamicMosquitto
from tests.integration.registry_service.provisioning.test_fallback import shut_out
from tests.stack import Stack

KEPT = pytest.mark.every_version("Mooring keeps its list of clients")
PATIENCE_S = 20.0


@asynccontextmanager
async def reconciling(stack: Stack, **changes: Any) -> AsyncIterator[None]:
    config = EnforcementConfig(
        **{
            "database_url": stack.database.url("mooring_registry"),
            "broker_service_address": f"127.0.0.1:{stack.broker_port}",
            "server_keys_file": stack.keys_file,
            "caller_secret_file": stack.trust.secrets[Identity.ENFORCEMENT],
            "broker_address_policy": "any",
            **changes,
        }
    )
    loop = Loop("enforcement", lambda: enforcement(config, "tests"))
    async with background(loops.run([loop])):
        yield


async def managed(stack: Stack, broker: DynamicMosquitto, **changes: Any) -> None:
    """Makes the running broker the default one, and managed."""
    body = {
        "host": "127.0.0.1",
        "port": broker.port,
        "management": "mosquitto",
        "username": USERNAME,
        "password": PASSWORD,
        **changes,
    }
    changed = await stack.admin("PATCH", f"/brokers/{stack.default_broker_id}", json=body)
    assert changed.status_code == 200, changed.text


async def login(stack: Stack, uuid: str) -> tuple[str, str]:
    mqtt = (await stack.register(uuid)).json()["mqtt"]
    return mqtt["username"], mqtt["password"]


class Reachable(Protocol):
    """A broker that clients can connect to."""

    def client(self, username: str, password: str) -> aiomqtt.Client: ...


async def is_let_in(broker: Reachable, login: tuple[str, str]) -> bool:
    try:
        async with broker.client(*login):
            return True
    except aiomqtt.MqttError:
        return False


async def until_let_in(broker: Reachable, login: tuple[str, str], *, is_in: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await is_let_in(broker, login) != is_in:
            await asyncio.sleep(0.02)


async def problem_of(stack: Stack) -> str:
    [(problem,)] = stack.database.execute("SELECT problem FROM driven_brokers") or [("",)]
    return str(problem)


async def state_of(stack: Stack, broker_id: int = 0) -> dict[str, Any]:
    """The state of a broker, by default of the default one, as the API shows it."""
    path = f"/brokers/{broker_id or stack.default_broker_id}/enforcement"
    answer = await stack.admin("GET", path)
    assert answer.status_code == 200, answer.text
    state: dict[str, Any] = answer.json()
    return state


async def until_state(stack: Stack, name: str, value: Any) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while (state := await state_of(stack))[name] != value:
            await asyncio.sleep(0.02)
    return state


async def until_measured(stack: Stack, count: int) -> dict[str, Any]:
    """The state when `count` revocations have taken effect; sessions end a moment earlier."""
    async with asyncio.timeout(PATIENCE_S):
        while (state := await state_of(stack))["revocations"]["count"] != count:
            await asyncio.sleep(0.02)
    return state


async def until_said(stack: Stack, words: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while words not in await problem_of(stack):
            await asyncio.sleep(0.05)


@pytest.fixture
def broker(tmp_path: Path, mosquitto_version: Version) -> Any:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with DynamicMosquitto(folder, version=mosquitto_version) as running:
        yield running


@KEPT
async def test_a_device_is_admitted_after_registering_and_loses_its_session_when_disabled(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    async with reconciling(stack):
        one, two = await login(stack, "one"), await login(stack, "two")
        await until_let_in(broker, one, is_in=True)
        await until_let_in(broker, two, is_in=True)
        async with broker.client(*one) as client, broker.client(*two) as other:
            await other.subscribe("iot/device/two/#", qos=1)
            await client.publish("iot/device/two/x", "refused", qos=1)
            await other.publish("iot/device/two/x", "yes", qos=1)
            message = await asyncio.wait_for(anext(other.messages), 5)
            assert message.payload == b"yes"
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await stack.admin("PATCH", "/devices/one", json={"is_active": False})
            with pytest.raises(aiomqtt.MqttError):
                await asyncio.wait_for(anext(client.messages), PATIENCE_S)
            assert loop.time() - begun < 5
            assert not await is_let_in(broker, one)
            # The other client is not affected.
            await other.publish("iot/device/two/x", "again", qos=1)
            message = await asyncio.wait_for(anext(other.messages), 5)
            assert message.payload == b"again"
        state = await until_measured(stack, 1)
        assert state["management"] == "mosquitto"
        assert state["pending_revocations"] == 0
        times = state["revocations"]
        assert 0 < times["last_s"] == times["median_s"] == times["slowest_s"] < 5
        assert times["last_at"] is not None
        await stack.admin("PATCH", "/devices/one", json={"is_active": True})
        await until_let_in(broker, one, is_in=True)
        await stack.admin("DELETE", "/devices/one")
        await until_let_in(broker, one, is_in=False)
        times = (await until_measured(stack, 2))["revocations"]
        assert 0 < times["median_s"] <= times["slowest_s"] < 5
        state = await until_state(stack, "clients", 1)
        assert (state["problem"], state["looked_at"]) == (None, state["in_step_at"])
        # Registered again, the device has another password.
        anew = await login(stack, "one")
        assert anew[1] != one[1]
        await until_let_in(broker, anew, is_in=True)
        assert not await is_let_in(broker, one)


async def test_the_broker_or_the_reconciler_may_restart(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    one = await login(stack, "one")
    async with reconciling(stack):
        await until_let_in(broker, one, is_in=True)
        broker.stop()
        two = await login(stack, "two")
        await until_said(stack, "no connection")
        state = await state_of(stack)
        assert "no connection" in state["problem"]
        assert state["in_step_at"] < state["looked_at"]
        broker.start()
        await until_let_in(broker, two, is_in=True)
    # While no process manages it, the broker keeps what it has.
    assert await is_let_in(broker, one)
    await stack.admin("PATCH", "/devices/one", json={"is_active": False})
    three = await login(stack, "three")
    async with reconciling(stack):
        await until_let_in(broker, three, is_in=True)
        await until_let_in(broker, one, is_in=False)
        assert await is_let_in(broker, two)


async def test_an_empty_database_removes_no_clients(stack: Stack, broker: DynamicMosquitto) -> None:
    await managed(stack, broker)
    logins = [await login(stack, f"d{n}") for n in range(12)]
    async with reconciling(stack, drift_check_s=0.5):
        for one in logins:
            await until_let_in(broker, one, is_in=True)
        # As if an empty backup had been restored.
        stack.database.execute("ALTER TABLE devices DISABLE TRIGGER USER")
        stack.database.execute("DELETE FROM devices")
        stack.database.execute("TRUNCATE device_counts, device_count_changes")
        stack.database.execute("ALTER TABLE devices ENABLE TRIGGER USER")
        await until_said(stack, "would be removed at once")
        for one in logins:
            assert await is_let_in(broker, one)


async def test_moving_or_disabling_a_fleet_is_not_taken_for_lost_data(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    other_id = await stack.create_broker("Other", host="other.example.com")
    logins = {f"d{n}": await login(stack, f"d{n}") for n in range(15)}
    async with reconciling(stack):
        for one in logins.values():
            await until_let_in(broker, one, is_in=True)
        # Half of them are answered with another broker; the rest are disabled with their fleet.
        for uuid in list(logins)[:8]:
            await stack.admin("PUT", f"/devices/{uuid}", json={"mqtt_broker_id": other_id})
            await stack.connection(uuid)
        for uuid, one in logins.items():
            await until_let_in(broker, one, is_in=uuid not in list(logins)[:8])
        stack.database.execute("UPDATE fleets SET is_active = false")
        for one in logins.values():
            await until_let_in(broker, one, is_in=False)
        assert await problem_of(stack) == ""


@KEPT
async def test_changes_by_hand_are_corrected(stack: Stack, broker: DynamicMosquitto) -> None:
    await managed(stack, broker)
    async with reconciling(stack, drift_check_s=0.5):
        one = await login(stack, "one")
        await until_let_in(broker, one, is_in=True)
        async with broker.client(USERNAME, PASSWORD) as admin:
            command = b'{"commands": [{"command": "deleteClient", "username": "device_one"}]}'
            await admin.publish("$CONTROL/dynamic-security/v1", command, qos=1)
        await until_let_in(broker, one, is_in=True)


async def test_a_wrong_login_is_the_brokers_problem(stack: Stack, broker: DynamicMosquitto) -> None:
    await managed(stack, broker, password="wrong")
    async with reconciling(stack):
        await until_said(stack, "does not accept the login")
        await managed(stack, broker)
        one = await login(stack, "one")
        await until_let_in(broker, one, is_in=True)
        async with asyncio.timeout(PATIENCE_S):
            while await problem_of(stack):
                await asyncio.sleep(0.02)


async def test_one_of_two_processes_manages_brokers(stack: Stack, broker: DynamicMosquitto) -> None:
    await managed(stack, broker)
    async with reconciling(stack):
        one = await login(stack, "one")
        await until_let_in(broker, one, is_in=True)
        async with reconciling(stack):
            two = await login(stack, "two")
            await until_let_in(broker, two, is_in=True)
    holders = stack.database.execute("SELECT count(*) FROM leases WHERE name = 'enforcement'")
    assert holders == [(1,)]


async def test_a_frozen_broker_does_not_delay_revocations_at_another(
    stack: Stack, broker: DynamicMosquitto, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with DynamicMosquitto(folder) as other:
        await managed(stack, broker)
        login_at_other = {"management": "mosquitto", "username": USERNAME, "password": PASSWORD}
        where = {"name": "Other", "host": "127.0.0.1", "port": other.port}
        made = await stack.admin("POST", "/brokers", json={**where, **login_at_other})
        assert made.status_code == 201, made.text
        one, two = await login(stack, "one"), await login(stack, "two")
        await stack.admin("PUT", "/devices/two", json={"mqtt_broker_id": made.json()["id"]})
        two = (two[0], (await stack.connection("two")).json()["password"])
        async with reconciling(stack):
            await until_let_in(broker, one, is_in=True)
            await until_let_in(other, two, is_in=True)
            broker.freeze()
            loop = asyncio.get_running_loop()
            begun = loop.time()
            # There is something to do at the frozen broker too.
            await stack.admin("PATCH", "/devices/one", json={"is_active": False})
            await stack.admin("PATCH", "/devices/two", json={"is_active": False})
            await until_let_in(other, two, is_in=False)
            assert loop.time() - begun < 5
            broker.thaw()
            await until_let_in(broker, one, is_in=False)


async def test_it_continues_when_the_database_is_back(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    async with reconciling(stack):
        one = await login(stack, "one")
        await until_let_in(broker, one, is_in=True)
        with shut_out(stack, "mooring_registry"):
            # Long enough for several checks to fail.
            async with asyncio.timeout(PATIENCE_S):
                while (await stack.admin("GET", "/fleets/demo")).status_code != 503:
                    await asyncio.sleep(0.02)
            stack.database.execute("UPDATE devices SET is_active = false")
            assert await is_let_in(broker, one)
        await until_let_in(broker, one, is_in=False)
