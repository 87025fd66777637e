"""The Mosquitto that `python -m local` starts: which clients it admits, and how it ends."""

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.documented import blocks
from tests.e2e.test_device import client_of
from tests.shell import pasted
from tests.supervised import MOSQUITTO, PATIENCE_S, Run

DEVICE = {
    "uuid": "test-device-123",
    "deviceName": "Test Device",
    "deviceType": "raspberry-pi-4",
    "deviceApiKey": "test-api-key",
}


@pytest.fixture
def first_run(tmp_path: Path) -> Iterator[Run]:
    """A run that is not started yet, on a machine that has Mosquitto."""
    run = Run(tmp_path / "home")
    run.find_mosquitto()
    yield run
    run.end()


async def is_let_in(mqtt: dict[str, Any], **changes: Any) -> bool:
    try:
        async with client_of(mqtt, **changes):
            return True
    except aiomqtt.MqttError:
        return False


async def publishes_and_subscribes(mqtt: dict[str, Any]) -> None:
    """Uses only what the registration says."""
    own = mqtt["topics"]["publish"][0].replace("#", "telemetry")
    async with client_of(mqtt, protocol=aiomqtt.ProtocolVersion.V5, clean_session=None) as client:
        await client.subscribe(mqtt["topics"]["subscribe"][0], qos=1)
        await client.publish(own, "21 °C", qos=1)
        message = await asyncio.wait_for(anext(client.messages), PATIENCE_S)
        assert (message.topic.value, message.payload) == (own, "21 °C".encode())
        [code] = await client.subscribe("iot/device/another/#", qos=1)
        assert getattr(code, "value", code) == 0x87


def pasted_into_shell(run: Run, *scripts: str) -> str:
    """All output of the scripts, with the run's home in place of `.mooring`."""
    script = "\n".join(scripts).replace(".mooring/", f"{run.home}/")
    return pasted(script, "curl", "mosquitto_pub")


async def test_a_device_uses_it_as_documented_until_everything_ends(first_run: Run) -> None:
    run = first_run
    said = run.start()
    assert f"  mqtt         {run.credentials()['MQTT_URL']}\n" in said
    assert run.credentials()["MQTT_URL"] == f"mqtt://localhost:{run.settings['MQTT_PORT']}"
    password = (run.home / "mosquitto-password").read_text()
    for log in (run.home / "logs").iterdir():
        assert password not in log.read_text(), log

    [_, registering] = blocks("../README.md", "sh")
    [pinning, asking, talking] = blocks("first-steps.md", "sh")
    [output] = blocks("first-steps.md", "text")
    talked = pasted_into_shell(run, registering, pinning, asking, talking)
    assert talked.endswith(output), talked

    status, answer = run.ask(
        "POST", "/api/v1/device/register", run.credentials()["PROVISIONING_KEY"], DEVICE
    )
    assert status == 200, answer
    mqtt = json.loads(answer)["mqtt"]
    await publishes_and_subscribes(mqtt)
    assert not await is_let_in(mqtt, password="wrong")

    family = run.family()
    assert family.child(MOSQUITTO)
    run.stop(signal.SIGKILL)
    # It starts at once, and waits for the processes that are left.
    run.start()
    family.wait_for_the_end()
    await publishes_and_subscribes(mqtt)
    family = run.family()
    status, said = run.stop()
    assert (status, said) == (0, "mooring: stopped\n")
    family.wait_for_the_end()


def test_a_taken_port_is_named(first_run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        first_run.settings["MQTT_PORT"] = str(port)
        said = first_run.refusal()
    assert said == f"mooring: MQTT_PORT: port {port} is taken by another process\n"
    assert not (first_run.home / "logs").exists()
