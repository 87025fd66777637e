"""A broker gets a certificate of another CA while its devices go on connecting."""

from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import trustme

from local.postgres import free_port
from tests.e2e.test_device import client_of
from tests.mosquitto import mosquitto
from tests.stack import Stack

DEVICES = ("old", "both", "new")


async def connecting(answers: dict[str, dict[str, Any]]) -> set[str]:
    """The devices that trust the broker's certificate, each with the CAs of its last answer."""
    found, errors = set(), []
    for device, mqtt in answers.items():
        try:
            async with client_of(mqtt):
                found.add(device)
        except aiomqtt.MqttError as error:
            errors.append(str(error))
    assert all("certificate verify failed" in error for error in errors), errors
    return found


# paho-mqtt does not close its socket when a handshake fails.
@pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_only_devices_that_never_got_the_new_ca_cannot_connect(
    stack: Stack, tmp_path: Path
) -> None:
    cas = trustme.CA(), trustme.CA()
    old_pem, new_pem = (ca.cert_pem.bytes().decode() for ca in cas)
    port = free_port()
    broker = {"name": "TLS", "protocol": "mqtts", "host": "localhost", "port": port}
    made = (await stack.admin("POST", "/brokers", json={**broker, "ca_cert": old_pem})).json()
    await stack.admin("POST", f"/brokers/{made['id']}/default")
    answers = {uuid: (await stack.register(uuid)).json()["mqtt"] for uuid in DEVICES}
    users = {mqtt["username"]: mqtt["password"] for mqtt in answers.values()}

    async def asks(*uuids: str) -> None:
        answers.update({uuid: (await stack.connection(uuid)).json() for uuid in uuids})

    rotation = f"/certificates/{made['ca_certificate_id']}/rotation"
    replacement = {"replacement": {"pem": new_pem}, "threshold_percent": 60}
    folders = [tmp_path / "before", tmp_path / "after"]
    for folder in folders:
        folder.mkdir()
    with mosquitto(folders[0], port, cas[0], users):
        await stack.admin("POST", rotation, json=replacement)
        await asks("both", "new")
        # The rotation has begun, and all devices still connect.
        assert await connecting(answers) == {*DEVICES}
        cutover = await stack.admin("POST", f"{rotation}/cutover", json={})
        assert cutover.status_code == 200, cutover.text
        await asks("new")
        assert answers["new"]["brokerConfig"]["caCert"] == new_pem
        # A device that has only the new CA waits for the broker's new certificate.
        assert await connecting(answers) == {"old", "both"}
    with mosquitto(folders[1], port, cas[1], users):
        assert await connecting(answers) == {"both", "new"}
        # The device only has to ask again.
        await asks("old")
        assert await connecting(answers) == {*DEVICES}
