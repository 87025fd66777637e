"""A real RabbitMQ that asks about clients, and whose sessions are ended at its management API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiomqtt
import pytest

from tests.brokers import Asking, asking
from tests.integration.registry_service.admission.reconciler.test_reconciler import (
    reconciling,
    state_of,
)
from tests.rabbitmq import Rabbitmq
from tests.stack import Stack

# RabbitMQ takes much memory and time to start.
pytestmark = pytest.mark.heavy
ASKING = pytest.mark.every_version("the broker asks over HTTP")

PATIENCE_S = 20.0
DEVICES = 200


@pytest.fixture
async def brokers(stack: Stack, rabbitmq: Rabbitmq) -> AsyncIterator[Asking]:
    """The default broker is the RabbitMQ, which asks the access listener."""
    async with asking(stack) as running:
        rabbitmq.ask_at(f"{running.url}/{running.secret}/rabbitmq")
        body = {
            "host": "127.0.0.1",
            "port": rabbitmq.mqtt_port,
            "management": "rabbitmq",
            "management_url": f"http://127.0.0.1:{rabbitmq.management_port}",
            "username": rabbitmq.username,
            "password": rabbitmq.password,
        }
        changed = await stack.admin("PATCH", f"/brokers/{stack.default_broker_id}", json=body)
        assert changed.status_code == 200, changed.text
        yield running


Login = tuple[str, str]


async def login(stack: Stack, uuid: str) -> Login:
    mqtt = (await stack.register(uuid)).json()["mqtt"]
    return mqtt["username"], mqtt["password"]


def client(rabbitmq: Rabbitmq, login: Login, **options: Any) -> aiomqtt.Client:
    username, password = login
    return aiomqtt.Client(
        "127.0.0.1",
        rabbitmq.mqtt_port,
        **{"username": username, "password": password, "timeout": PATIENCE_S, **options},
    )


async def is_let_in(rabbitmq: Rabbitmq, login: Login, **options: Any) -> bool:
    try:
        async with client(rabbitmq, login, **options):
            return True
    except aiomqtt.MqttError:
        return False


@asynccontextmanager
async def closing(rabbitmq: Rabbitmq, login: Login) -> AsyncIterator[aiomqtt.Client]:
    """The block must make RabbitMQ close the connection, which is how it refuses."""
    try:
        async with client(rabbitmq, login) as connected:
            yield connected
            await asyncio.wait_for(anext(connected.messages), PATIENCE_S)
    except aiomqtt.MqttError as error:
        # This error means that the client's wait for an acknowledgement has timed out.
        if "timed out" not in str(error):
            return
    raise AssertionError("RabbitMQ did not close the connection")


@ASKING
async def test_a_device_uses_its_own_topics_and_no_other(
    brokers: Asking, rabbitmq: Rabbitmq
) -> None:
    stack = brokers.stack
    one, two = await login(stack, "one"), await login(stack, "two")
    async with client(rabbitmq, one) as device, client(rabbitmq, two) as other:
        await device.subscribe("iot/device/one/#", qos=1)
        await device.publish("iot/device/one/x", "mine", qos=1)
        message = await asyncio.wait_for(anext(device.messages), PATIENCE_S)
        assert (message.topic.value, message.payload) == ("iot/device/one/x", b"mine")
        await other.subscribe("iot/device/two/+/x", qos=1)
    # In RabbitMQ's routing keys "*" is an ordinary character, and the "+" of a filter becomes "*".
    async with client(rabbitmq, one, identifier="stars") as device:
        for topic in ("iot/device/one/*", "iot/device/one/a*b", "iot/device/one/%u/$x"):
            await device.publish(topic, "mine", qos=1)
        await device.publish("iot/device/one/x", "still here", qos=1)
    wrong = ((one[0], "wrong"), (one[0], two[1]), ("device_ghost", one[1]), ("one", one[1]))
    async with client(rabbitmq, one, identifier="mqttjs_1"):
        # All at once, because RabbitMQ 4 answers refused clients after three seconds.
        found = await asyncio.gather(
            *(is_let_in(rabbitmq, login_) for login_ in wrong),
            is_let_in(rabbitmq, (f"other:{one[0]}", one[1])),
            # The client id of another device, and one that another client uses.
            is_let_in(rabbitmq, one, identifier="two"),
            is_let_in(rabbitmq, two, identifier="mqttjs_1"),
        )
    assert not any(found)
    for topic in ("iot/device/two/x", "iot.device.two.x", "x", "iot/device/*/x"):
        async with closing(rabbitmq, one) as device:
            await device.publish(topic, "not mine", qos=0)
    for topic in ("iot/device/two/#", "iot/device/+/x", "iot/device/*/x", "#", "iot/#", "+/#"):
        async with closing(rabbitmq, one) as device:
            # RabbitMQ does not answer, so this does not wait for an answer.
            with suppress(aiomqtt.MqttError):
                await device.subscribe(topic, timeout=0.01)


async def test_a_device_that_was_moved_is_refused_by_its_previous_broker(
    brokers: Asking, rabbitmq: Rabbitmq
) -> None:
    stack = brokers.stack
    one = await login(stack, "one")
    other_id = await stack.create_broker("Other", host="other.example.com")
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": other_id})
    assert await is_let_in(rabbitmq, one)
    await stack.connection("one")
    async with asyncio.timeout(PATIENCE_S):
        while await is_let_in(rabbitmq, one):
            await asyncio.sleep(0.02)


@ASKING
async def test_the_session_of_a_disabled_device_ends_within_seconds(
    brokers: Asking, rabbitmq: Rabbitmq
) -> None:
    stack = brokers.stack
    one, two = await login(stack, "one"), await login(stack, "two")
    async with reconciling(stack), client(rabbitmq, one) as device, client(rabbitmq, two) as other:
        # By then the reconciler knows the broker.
        async with asyncio.timeout(PATIENCE_S):
            while not stack.database.execute("SELECT 1 FROM driven_brokers"):
                await asyncio.sleep(0.02)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await stack.admin("PATCH", "/devices/one", json={"is_active": False})
        with pytest.raises(aiomqtt.MqttError):
            await asyncio.wait_for(anext(device.messages), PATIENCE_S)
        assert loop.time() - begun < 5
        assert not await is_let_in(rabbitmq, one)
        await other.subscribe("iot/device/two/#")
        took = "SELECT extract(epoch FROM done_at - asked_at), sessions, reason FROM revocations"
        async with asyncio.timeout(PATIENCE_S):
            while (rows := stack.database.execute(took))[0][0] is None:
                await asyncio.sleep(0.02)
        assert [row[1:] for row in rows] == [(1, "disabled")]
        state = await state_of(stack)
        assert (state["management"], state["clients"]) == ("rabbitmq", None)
        assert (state["problem"], state["pending_revocations"]) == (None, 0)
        assert state["revocations"]["count"] == 1
        assert 0 < state["revocations"]["last_s"] < 5


async def test_two_hundred_devices_at_once(brokers: Asking, rabbitmq: Rabbitmq) -> None:
    logins = await asyncio.gather(*(login(brokers.stack, f"d{n}") for n in range(DEVICES)))
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(is_let_in(rabbitmq, one, timeout=60) for one in logins))
    assert found == [True] * DEVICES
    crossed = [(logins[n][0], logins[n - 1][1]) for n in range(DEVICES)]
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(is_let_in(rabbitmq, one, timeout=60) for one in crossed))
    assert found == [False] * DEVICES
