"""From an installation without a broker to a device that is connected with TLS."""

from pathlib import Path

import trustme
from playwright.async_api import expect

from local.postgres import free_port
from tests.browser.person import Person, seen
from tests.e2e.test_device import client_of
from tests.mosquitto import mosquitto
from tests.stack import Stack

UUID = "test-device-123"


@seen("dark")
async def test_the_first_broker_has_tls(person: Person, stack: Stack, tmp_path: Path) -> None:
    stack.database.execute("UPDATE mqtt_broker_config SET is_default = false")
    stack.database.execute("DELETE FROM mqtt_broker_config")
    assert "brokerConfig" not in (await stack.register(UUID)).json()["mqtt"]
    ca = trustme.CA()
    pem = ca.cert_pem.bytes().decode()
    port = free_port()
    await person.signs_in()
    await person.goes_to("Brokers")
    await person.sees("No broker yet.", "curl -X POST")
    await person.follows("New broker")
    await person.reads("New broker")
    await person.types("Name", "Hall 7")
    await person.chooses("Protocol", "mqtts, with TLS")
    await person.types("Host", "localhost")
    await person.types("Port", str(port))
    await person.types("New CA bundle", pem.replace("M", "*", 3))
    await expect(person.field("New CA bundle")).to_have_attribute("aria-invalid", "true")
    await person.looks()
    await person.types("New CA bundle", pem)
    await person.is_told("status", "This broker can be created.")
    await person.presses("Create")
    await person.reads("Hall 7")
    await person.follows("Make default…")
    await person.sees("No broker is the default now.")
    await person.looks()
    await person.presses("Make it the default")
    await person.sees(f"mqtts://localhost:{port}", "Default")
    await person.looks()

    mqtt = (await stack.connection(UUID)).json()
    assert mqtt["broker"] == f"mqtts://localhost:{port}"
    topic = mqtt["topics"]["publish"][0].replace("#", "state")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with mosquitto(folder, port, ca, {mqtt["username"]: mqtt["password"]}):
        async with client_of(mqtt) as client:
            await client.subscribe(topic, qos=1)
            await client.publish(topic, b"on", qos=1)
            message = await anext(aiter(client.messages))
            assert (str(message.topic), message.payload) == (topic, b"on")
