"""A broker's secret gives access to devices that were notified of this broker, and to no others."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from prometheus_client import REGISTRY

from registry_service.admission.decision import HIDDEN
from tests.brokers import Asking, asking, secret_of
from tests.integration.registry_service.administration.test_import import MOSQUITTO, imported, row

IS_ONLINE = "SELECT is_online, last_seen_at FROM devices WHERE uuid = %s"


@dataclass
class Customers:
    """The devices belong to one customer; the secret is of another customer's broker."""

    brokers: Asking
    secret: str
    broker_id: int
    # The login of one of B's devices.
    mqtt: dict[str, Any]


@pytest.fixture
async def customers(stack: Any) -> AsyncIterator[Customers]:
    async with asking(stack) as running:
        mqtt = (await stack.register("of-b")).json()["mqtt"]
        await stack.register("disabled")
        await stack.admin("PATCH", "/devices/disabled", json={"is_active": False})
        at = {"mqtt_broker_id": stack.default_broker_id}
        await imported(stack, [row("slow", mqtt_username="slow", password_hash=MOSQUITTO, **at)])
        stack.database.execute(
            "INSERT INTO service_accounts (username, password_hash, password_salt, broker_ids,"
            " publish, subscribe) VALUES ('account', %s, 'salt', %s, '{}', '{}')",
            "0" * 64,
            [stack.default_broker_id],
        )
        broker_id = await stack.create_broker("Of A", host="a.example.com")
        secret = secret_of(stack, broker_id)
        async with asyncio.timeout(15):
            while (await running.emqx("authenticate", secret)).status_code == 401:
                await asyncio.sleep(0.02)
        yield Customers(running, secret, broker_id, mqtt)


async def events(customers: Customers, secret: str, *said: dict[str, Any]) -> None:
    for event in said:
        assert (await customers.brokers.emqx("event", secret, **event)).status_code == 200


def refused_notices(broker_id: int) -> float:
    labels = {"broker_id": str(broker_id)}
    return REGISTRY.get_sample_value("mooring_access_notices_refused_total", labels) or 0.0


async def test_a_broker_never_says_whether_a_device_of_another_is_online(
    customers: Customers,
) -> None:
    """It can report neither a connection, nor its end, nor a last use."""
    stack, username = customers.brokers.stack, customers.mqtt["username"]
    before = refused_notices(customers.broker_id)
    came = {"event": "client.connected", "clientid": "of-b", "username": username}
    await events(customers, customers.secret, came, {**came, "username": "slow"})
    async with asyncio.timeout(15):
        while refused_notices(customers.broker_id) < before + 2:
            await asyncio.sleep(0.02)
    for uuid in ("of-b", "slow"):
        assert stack.database.execute(IS_ONLINE, uuid) == [(False, None)]
    # The device's own broker reports it as online; the other broker can neither end nor change
    # that.
    await events(customers, customers.brokers.secret, came)
    left = came | {"event": "client.disconnected", "timestamp": 4_000_000_000_000}
    await events(customers, customers.secret, left)
    async with asyncio.timeout(15):
        while refused_notices(customers.broker_id) < before + 3:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(15):
        while not stack.database.execute(IS_ONLINE, "of-b")[0][0]:
            await asyncio.sleep(0.02)


async def test_many_notices_of_one_broker_do_not_displace_those_of_another(
    customers: Customers,
) -> None:
    stack, username = customers.brokers.stack, customers.mqtt["username"]
    came = {"event": "client.connected", "clientid": "of-b", "username": username}
    await events(customers, customers.brokers.secret, came)
    await events(
        customers,
        customers.secret,
        *({**came, "event": f"client.{said}"} for said in ("connected", "disconnected") * 20),
    )
    async with asyncio.timeout(15):
        while not stack.database.execute(IS_ONLINE, "of-b")[0][0]:
            await asyncio.sleep(0.02)


def form(path: str, **fields: Any) -> Callable[[str], tuple[str, dict[str, Any]]]:
    return lambda secret: (f"/{secret}{path}", {"content": urlencode(fields), "headers": FORM})


FORM = {"content-type": "application/x-www-form-urlencoded"}


def questions(username: str, password: str, client_id: str) -> Iterator[tuple[str, Any, Any]]:
    """Each question of each dialect: its path after the secret, its body, its headers."""
    emqx = {"username": username, "clientid": client_id}
    topic = "iot/device/of-b/x"
    yield "/emqx/authenticate", {**emqx, "password": password}, {}
    for action in ("publish", "subscribe"):
        yield "/emqx/authorize", {**emqx, "topic": topic, "action": action}, {}
    yield "/mosquitto/user", {**emqx, "password": password}, {}
    for acc in (1, 2, 3, 4, 8):
        yield "/mosquitto/acl", {**emqx, "topic": topic, "acc": acc}, {}
    verne = {"username": username, "client_id": client_id, "topic": topic}
    topics = [{"topic": topic, "qos": 0}, {"topic": "#", "qos": 0}]
    for hook in ("auth_on_register", "auth_on_publish", "auth_on_subscribe"):
        for version in ("", "_m5"):
            body = {**verne, "password": password, "topics": topics}
            yield "/vernemq/webhook", body, {"vernemq-hook": hook + version}
    rabbit = {"username": username, "vhost": "/", "client_id": client_id}
    exchange = {"resource": "exchange", "name": "amq.topic", "permission": "write"}
    key = {"routing_key": "iot.device.of-b.x", "variable_map.client_id": client_id}
    yield "/rabbitmq/user", urlencode({**rabbit, "password": password}), FORM
    yield "/rabbitmq/vhost", urlencode(rabbit), FORM
    yield "/rabbitmq/resource", urlencode({**rabbit, **exchange}), FORM
    yield "/rabbitmq/topic", urlencode({**rabbit, **exchange, **key}), FORM


async def answers(
    customers: Customers, username: str, password: str, client_id: str = "any"
) -> list[tuple[str, int, list[tuple[str, str]], str]]:
    """The answers to the broker of A, complete except for the time."""
    found = []
    for path, body, headers in questions(username, password, client_id):
        content = body if isinstance(body, str) else json.dumps(body)
        answer: httpx2.Response = await customers.brokers.http.post(
            f"/{customers.secret}{path}",
            content=content,
            headers={"content-type": "application/json", **headers},
        )
        head = sorted((name, value) for name, value in answer.headers.items() if name != "date")
        found.append((path, answer.status_code, head, answer.text))
    return found


async def test_a_broker_never_learns_which_devices_of_others_there_are(
    customers: Customers,
) -> None:
    """The answers reveal neither whether a device exists, nor whether it is disabled or has a slow
    hash, nor its password.
    """
    unknown = await answers(customers, "device_never", "wrong")
    assert not any(
        "allow"
        in text.removeprefix('{"result":{"error":"not_allowed"}}').replace("NOT_ALLOWED", "")
        for _, _, _, text in unknown
    )
    for username, password in (
        (customers.mqtt["username"], "wrong"),
        (customers.mqtt["username"], customers.mqtt["password"]),
        ("device_disabled", "wrong"),
        ("slow", "wrong"),
        ("slow", "secret"),
        ("account", "wrong"),
        ("nobody", "wrong"),
    ):
        for _ in range(2):
            assert await answers(customers, username, password) == unknown, username
    reasons = HIDDEN | {"DISABLED", "EXPIRED"}
    assert not [text for *_, text in unknown if any(reason in text for reason in reasons)]


async def test_operators_can_distinguish_the_reasons(customers: Customers) -> None:
    def count(reason: str) -> float:
        labels = {"dialect": "mosquitto", "question": "connect", "reason": reason}
        return REGISTRY.get_sample_value("mooring_access_verdicts_total", labels) or 0.0

    for username, secret, reason in (
        ("device_never", customers.secret, "USER_UNKNOWN"),
        (customers.mqtt["username"], customers.secret, "BROKER_NOT_TOLD"),
        (customers.mqtt["username"], customers.brokers.secret, "PASSWORD_WRONG"),
    ):
        before = count(reason)
        answer = await customers.brokers.http.post(
            f"/{secret}/mosquitto/user",
            json={"username": username, "password": "wrong", "clientid": "c"},
        )
        assert answer.json() == {"Ok": False, "Error": "NOT_ALLOWED"}
        assert count(reason) == before + 1


async def test_a_client_id_never_tells_of_a_device_of_another_broker(
    customers: Customers,
) -> None:
    """A device of A's uses the client id of B's device, or of no device at all."""
    stack = customers.brokers.stack
    await stack.register("of-a")
    await stack.admin("PUT", "/devices/of-a", json={"mqtt_broker_id": customers.broker_id})
    mqtt = (await stack.connection("of-a")).json()
    login = mqtt["username"], mqtt["password"]

    async def connects(client_id: str) -> bool:
        return await customers.brokers.connects(*login, client_id, secret=customers.secret)

    for client_id in ("never", "of-b", "device_of-b", "mooring-of-b", "slow", "disabled"):
        for _ in range(2):  # from the database, then from memory
            assert await connects(client_id), client_id
    # If that device is notified of the same broker, the client id belongs to it again.
    await stack.admin("PUT", "/devices/of-b", json={"mqtt_broker_id": customers.broker_id})
    other = (await stack.connection("of-b")).json()
    async with asyncio.timeout(15):
        while await connects("device_of-b"):
            await asyncio.sleep(0.02)
    assert await customers.brokers.connects(
        other["username"], other["password"], "device_of-b", secret=customers.secret
    )
