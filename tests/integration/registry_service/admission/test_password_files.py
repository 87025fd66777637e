"""A Mosquitto with files of passwords and rules, like those of fleets that are imported."""

import ssl
from base64 import b64decode
from pathlib import Path

import aiomqtt
import pytest
import trustme

from local.postgres import free_port
from registry_service.password_hashes import read_password_hash
from registry_service.passwords import Password, is_password
from tests.broker_versions import Version
from tests.mosquitto import mosquitto

USERS = {"device_one": "the first", "device_two": "the second"}
PATIENCE_S = 20.0
NOT_AUTHORIZED = 0x87


@pytest.mark.every_version("files of passwords and rules")
async def test_a_device_has_its_password_and_its_topics_and_its_hash_is_imported(
    tmp_path: Path, mosquitto_version: Version
) -> None:
    ca, port = trustme.CA(), free_port()
    tls = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())

    def client(username: str, password: str) -> aiomqtt.Client:
        return aiomqtt.Client(
            *("localhost", port),
            username=username,
            password=password,
            tls_context=tls,
            protocol=aiomqtt.ProtocolVersion.V5,
            timeout=PATIENCE_S,
        )

    with mosquitto(tmp_path, port, ca, USERS, mosquitto_version):
        async with (
            client("device_one", "the first") as one,
            client("device_two", "the second") as two,
        ):
            await two.subscribe("iot/device/#", qos=1)
            for topic in ("iot/device/one/x", "iot/device/two/x", "iot/device/two/last"):
                await one.publish(topic, qos=1)
            await two.publish("iot/device/two/last", qos=1)
            assert (await anext(aiter(two.messages))).topic.value == "iot/device/two/last"
            assert len(two.messages) == 0
        for username, password in (("device_one", "the second"), ("device_three", ""), ("", "")):
            with pytest.raises(aiomqtt.MqttCodeError) as refused:
                await client(username, password).__aenter__()
            assert getattr(refused.value.rc, "value", refused.value.rc) == NOT_AUTHORIZED
    assert "deprecated" not in (tmp_path / "mosquitto.log").read_text()

    for line in (tmp_path / "passwords").read_text().splitlines():
        username, _, text = line.partition(":")
        kept = read_password_hash(text, None, None)
        salt = b64decode(text.split("$")[3])
        assert len(salt) == (64 if mosquitto_version.is_at_least("2.1") else 12)
        found = Password(kept.algorithm, kept.hash)
        assert is_password(found, USERS[username])
        assert not is_password(found, "another")
