"""A real Mosquitto with dynamic security: what devices may do, and when their access ends."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import aiomqtt
import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from registry_service.admission.reconciler.dynamic_security import Wanted
from registry_service.admission.reconciler.mosquitto_client import DynamicSecurity
from registry_service.admission.reconciler.planning import plan
from registry_service.password_hashes import PasswordHash
from tests import debian
from tests.broker_versions import Version
from tests.dynamic_security import (
    FLEET,
    OBSERVER,
    SOON_S,
    A,
    B,
    DynamicMosquitto,
    Filters,
    brought_in_step,
    by_hand,
    device,
    filled,
    is_refused,
    kicked,
    may_subscribe,
    password_of,
    session,
)

pytestmark = pytest.mark.every_version("Mooring keeps its list of clients")

# All defaults allow, as a careless administrator may have set them.
OPEN = dict.fromkeys(
    ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"), True
)


@pytest.fixture
def broker(tmp_path: Path, mosquitto_version: Version) -> Iterator[DynamicMosquitto]:
    """Starts with the fleet in its file."""
    with DynamicMosquitto(tmp_path, filled(FLEET), version=mosquitto_version) as running:
        yield running


def lasting(broker: DynamicMosquitto, one: Wanted, client_id: str) -> aiomqtt.Client:
    """A client whose session, with its queued messages, is kept when it disconnects."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3_600
    return session(broker, one, identifier=client_id, clean_start=False, properties=properties)


def dies(
    broker: DynamicMosquitto, one: Wanted, topic: str, protocol: aiomqtt.ProtocolVersion
) -> None:
    """Closes a connection without DISCONNECT, so that the broker publishes its will to `topic`."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol.value)
    client.username_pw_set(one.username, password_of(one))
    client.will_set(topic, qos=1)
    client.connect("127.0.0.1", broker.port)
    while not client.is_connected():
        client.loop()
    connection = client.socket()
    assert connection is not None
    connection.close()


async def received(client: aiomqtt.Client, fence: str) -> list[str]:
    """The topics of the messages that came before `fence`."""
    topics: list[str] = []
    async with asyncio.timeout(10):
        async for message in client.messages:
            if str(message.topic) == fence:
                break
            topics.append(str(message.topic))
    return topics


REFUSED = (
    "#",
    "+/#",
    "+/device/a/#",
    "iot/#",
    "iot/device/#",
    "iot/device/+/#",
    "iot/device/+",
    "iot/device/b/#",
    "iot/device/ab/#",
    "iot/device/A/#",
    "$SYS/#",
    "$SYS/broker/version",
    "$CONTROL/#",
    "$CONTROL/dynamic-security/v1/response",
    "$share/g/#",
    "$share/g/iot/device/b/#",
    "$share/g/$SYS/#",
)
ALLOWED = ("iot/device/a/#", "iot/device/a", "iot/device/a/+/x", "$share/g/iot/device/a/#")


@pytest.mark.parametrize("way", ["from its file", "over its control topic", "with open defaults"])
@pytest.mark.parametrize("protocol", [aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311])
async def test_a_device_has_exactly_its_own_topics(
    tmp_path: Path, way: str, protocol: aiomqtt.ProtocolVersion, mosquitto_version: Version
) -> None:
    text = filled(FLEET if way == "from its file" else [])
    if way == "with open defaults":
        text = json.dumps({**json.loads(text), "defaultACLAccess": OPEN})
    with DynamicMosquitto(tmp_path, text, version=mosquitto_version) as broker:
        await brought_in_step(broker, FLEET)
        async with session(broker, OBSERVER) as observer:
            assert await may_subscribe(observer, "#")
            # The observer may not see $SYS; the rest of this test is about the device.
            assert not await may_subscribe(observer, "$SYS/#")
            async with session(broker, A, protocol=protocol) as client:
                assert [one for one in REFUSED if await may_subscribe(client, one)] == []
                for topics in ALLOWED:
                    assert await may_subscribe(client, topics)
                    await client.unsubscribe(topics)
                for topic in ("iot/device/b/x", "iot/device/ab", "iot/device", "x", "$SYS/x"):
                    for qos in (0, 1, 2):
                        await client.publish(topic, qos=qos)
                await client.publish("$CONTROL/dynamic-security/v1", '{"commands": []}', qos=1)
                await client.publish("iot/device/a/deep/er", qos=1)
                await client.publish("iot/device/a", qos=1)
            assert await received(observer, "iot/device/a") == ["iot/device/a/deep/er"]
            # A will needs the same right as any other message.
            for topic in ("iot/device/b/will", "iot/device/a"):
                await asyncio.to_thread(dies, broker, A, topic, protocol)
            assert await received(observer, "iot/device/a") == []


async def test_another_password_or_username_is_refused(broker: DynamicMosquitto) -> None:
    for other in (device("a", "guessed"), device("c"), replace(A, username="A")):
        assert await is_refused(broker, other)
    anonymous = aiomqtt.Client(
        "127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5, timeout=20
    )
    with pytest.raises(aiomqtt.MqttCodeError, match="Not authorized"):
        await anonymous.__aenter__()
    assert not await is_refused(broker, A)


@pytest.fixture
def hashed(tmp_path: Path) -> str:
    """The hash that Mosquitto's own program makes of a password."""
    program, libraries = debian.program("mosquitto_passwd")
    kept = tmp_path / "passwords"
    kept.touch(mode=0o600)
    command: list[Path | str] = [program, "-b", kept, "a", "the old one"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **libraries})
    return kept.read_text().strip().removeprefix("a:")


async def test_a_hash_that_mosquitto_made_is_accepted(
    tmp_path: Path, hashed: str, mosquitto_version: Version
) -> None:
    imported = replace(A, password=PasswordHash("mosquitto_pbkdf2", hashed))
    with DynamicMosquitto(tmp_path, filled([imported]), version=mosquitto_version) as broker:
        assert not await is_refused(broker, device("a", "the old one"))
        assert await is_refused(broker, A)
        assert (await brought_in_step(broker, [imported])).commands == ()


async def test_200_devices_are_created_by_one_plan_and_connect_at_once(
    tmp_path: Path, mosquitto_version: Version
) -> None:
    fleet = [device(f"device-{n}") for n in range(200)]

    async def works(broker: DynamicMosquitto, one: Wanted) -> None:
        async with session(broker, one) as client:
            topic = f"iot/device/{one.username}/x"
            assert await may_subscribe(client, topic)
            await client.publish(topic, qos=1)
            assert await received(client, topic) == []

    with DynamicMosquitto(tmp_path, version=mosquitto_version) as broker:
        assert len((await brought_in_step(broker, fleet)).created) == 200
        await asyncio.gather(*(works(broker, one) for one in fleet))


@pytest.mark.parametrize("way", ["disabled", "removed", "another password"])
async def test_access_ends_with_the_command(broker: DynamicMosquitto, way: str) -> None:
    security = DynamicSecurity(broker.settings)
    changed = device("a", "another")
    async with session(broker, B) as other:
        client = session(broker, A)
        await client.__aenter__()
        async with kicked(client) as ended:
            began = time.perf_counter()
            match way:
                case "disabled":
                    await security.disable(["a", "nobody"])
                case "removed":
                    await security.apply(plan([B, OBSERVER], await security.state()))
                case _:
                    await security.apply(plan([changed, B, OBSERVER], await security.state()))
        assert await ended - began < SOON_S
        assert await is_refused(broker, A)
        assert await is_refused(broker, changed) == (way != "another password")
        # The other client is not affected.
        assert await may_subscribe(other, "iot/device/b/#")
        if way == "disabled":
            # The client is wanted again.
            assert (await brought_in_step(broker, FLEET)).changed == ("a",)
            assert not await is_refused(broker, A)


async def test_a_changed_role_applies_to_open_connections(
    broker: DynamicMosquitto,
) -> None:
    moved = replace(A, grants=Filters(("new/#",), ("new/#",)))
    async with session(broker, OBSERVER) as observer:
        client = lasting(broker, A, "client-of-a")
        await client.__aenter__()
        assert await may_subscribe(client, "iot/device/a/#")
        async with kicked(client):
            await brought_in_step(broker, [moved, B, OBSERVER])
        # The subscription is still part of the session, but delivers nothing.
        await observer.publish("iot/device/a/x", qos=1)
        async with lasting(broker, moved, "client-of-a") as client:
            assert await may_subscribe(client, "new/#")
            assert not await may_subscribe(client, "iot/device/a/#")
            await observer.publish("iot/device/a/x", qos=1)
            await observer.publish("new/fence", qos=1)
            assert await received(client, "new/fence") == []


@pytest.mark.parametrize("defaults", [None, OPEN])
async def test_queued_and_retained_messages_reach_no_other_client(
    tmp_path: Path, defaults: dict[str, bool] | None, mosquitto_version: Version
) -> None:
    document = json.loads(filled(FLEET))
    document["defaultACLAccess"] = defaults or document["defaultACLAccess"]
    with DynamicMosquitto(tmp_path, json.dumps(document), version=mosquitto_version) as broker:
        async with session(broker, OBSERVER) as observer:
            async with lasting(broker, A, "client-of-a") as client:
                assert await may_subscribe(client, "iot/device/a/#")
            await observer.publish("iot/device/a/queued", qos=1)
            await observer.publish("iot/device/a/retained", "x", qos=1, retain=True)
            await DynamicSecurity(broker.settings).disable(["a"])
            await observer.publish("iot/device/a/late", qos=1)
            assert await is_refused(broker, A, identifier="client-of-a", clean_start=False)
            # Another device with the same client id takes over the session and its queue.
            async with lasting(broker, B, "client-of-a") as thief:
                assert await may_subscribe(thief, "iot/device/b/#")
                await observer.publish("iot/device/a/later", qos=1)
                await observer.publish("iot/device/b/fence", qos=1)
                assert await received(thief, "iot/device/b/fence") == []


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
async def test_changes_are_kept_when_the_broker_ends(
    broker: DynamicMosquitto, way: signal.Signals
) -> None:
    await brought_in_step(broker, [A, OBSERVER, device("c")])
    broker.stop(way)
    broker.start()
    assert (await brought_in_step(broker, [A, OBSERVER, device("c")])).commands == ()
    assert await is_refused(broker, B)
    assert not await is_refused(broker, device("c"))


def written_bytes(broker: DynamicMosquitto) -> int:
    [line] = [
        line
        for line in Path(f"/proc/{broker.process.pid}/io").read_text().splitlines()
        if line.startswith("wchar:")
    ]
    return int(line.split()[1])


async def test_2_1_saves_once_for_each_message_and_2_0_at_each_command(
    tmp_path: Path, mosquitto_version: Version
) -> None:
    fleet = [device(f"device-{n}") for n in range(100)]
    with DynamicMosquitto(tmp_path, filled(fleet), version=mosquitto_version) as broker:
        security = DynamicSecurity(broker.settings)
        more = [*fleet, *(device(f"late-{n}") for n in range(8))]
        made = plan(more, await security.state())
        # The commands fit into one message.
        assert len(made.commands) == 24
        before, size = written_bytes(broker), broker.file.stat().st_size
        await security.apply(made)
        saved = (written_bytes(broker) - before) / size
    if mosquitto_version.is_at_least("2.1"):
        assert 0.9 < saved < 3
    else:
        # The files that it writes are shorter than the first one, which is indented.
        assert saved > 12


async def test_roles_may_contain_the_username_since_2_1(
    broker: DynamicMosquitto, mosquitto_version: Version
) -> None:
    """Mooring cannot use this while it supports 2.0."""
    own = {"acltype": "subscribePattern", "topic": "own/%u/#", "allow": True}
    await by_hand(
        broker,
        ("createRole", {"rolename": "own", "acls": [own]}),
        ("createClient", {"username": "x", "password": "x", "roles": [{"rolename": "own"}]}),
    )
    async with broker.client("x", "x") as client:
        assert await may_subscribe(client, "own/x/y") == mosquitto_version.is_at_least("2.1")
        assert not await may_subscribe(client, "own/a/y")
