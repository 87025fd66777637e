"""A device from its registration to its messages: real processes, real broker, real client."""

import json
import ssl
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import trustme

from local.postgres import free_port
from tests.mosquitto import mosquitto
from tests.supervised import Run

DEVICE = {
    "uuid": "test-device-123",
    "deviceName": "Test Device",
    "deviceType": "raspberry-pi-4",
    "deviceApiKey": "test-api-key",
}


def asked(run: Run, method: str, path: str, token: str, body: object) -> Any:
    status, answer = run.ask(method, path, run.credentials()[token], body)
    assert status in (200, 201), answer
    return json.loads(answer)


def client_of(mqtt: dict[str, Any], **changes: Any) -> aiomqtt.Client:
    """Connects with only what the registration says, as the note's agent does."""
    config = mqtt["brokerConfig"]
    tls = None
    if config["useTls"]:
        tls = ssl.create_default_context(cadata=config["caCert"])
        assert config["verifyCertificate"]
    options = {
        "hostname": config["host"],
        "port": config["port"],
        "username": mqtt["username"],
        "password": mqtt["password"],
        "identifier": f"{config['clientIdPrefix']}_{mqtt['username']}",
        "keepalive": config["keepAlive"],
        "clean_session": config["cleanSession"],
        "timeout": config["connectTimeout"] / 1000,
        "tls_context": tls,
    }
    return aiomqtt.Client(**options | changes)


# paho-mqtt does not close its socket when a handshake fails.
@pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_a_device_connects_with_only_what_its_registration_says(
    run: Run, tmp_path: Path
) -> None:
    ca, another_ca = trustme.CA(), trustme.CA()
    port = free_port()
    broker = {
        "name": "Secure",
        "protocol": "mqtts",
        "host": "localhost",
        "port": port,
        "ca_cert": ca.cert_pem.bytes().decode(),
    }
    made = asked(run, "POST", "/api/v1/brokers", "ADMIN_TOKEN", broker)
    asked(run, "POST", f"/api/v1/brokers/{made['id']}/default", "ADMIN_TOKEN", None)
    mqtt = asked(run, "POST", "/api/v1/device/register", "PROVISIONING_KEY", DEVICE)["mqtt"]
    assert mqtt["broker"] == f"mqtts://localhost:{port}"
    publish, subscribe = (mqtt["topics"][way][0] for way in ("publish", "subscribe"))

    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with mosquitto(folder, port, ca, {mqtt["username"]: mqtt["password"]}):
        async with client_of(mqtt) as client:
            await client.subscribe(subscribe, qos=1)
            await client.publish(publish.replace("#", "state"), b"on", qos=1)
            message = await anext(aiter(client.messages))
            assert (str(message.topic), message.payload) == (
                "iot/device/test-device-123/state",
                b"on",
            )

        wrong_ca = ssl.create_default_context(cadata=another_ca.cert_pem.bytes().decode())
        with pytest.raises(aiomqtt.MqttError, match="certificate verify failed"):
            async with client_of(mqtt, tls_context=wrong_ca):
                pytest.fail("the client trusted a broker with a certificate of another CA")
        with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authori[sz]ed"):
            async with client_of(mqtt, password="guessed"):
                pytest.fail("the broker admitted a client with another password")
