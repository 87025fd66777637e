"""One device among many, a change of many devices, and a device that may not connect any more."""

import asyncio

import aiomqtt
import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.browser.journeys import made
from tests.browser.journeys.installation import Installation
from tests.browser.person import Person, seen
from tests.e2e.test_device import client_of
from tests.served import PATIENCE_S

CROWD, MILLION = 20_000, 1_000_000
PINS = "SELECT mqtt_broker_id, count(*) FROM devices WHERE fleet_id = %s GROUP BY 1"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crowd(installation: Installation) -> str:
    """The beginning of the uuids of many devices."""
    return await crowd_of(installation, CROWD)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def million(installation: Installation) -> str:
    """The beginning of the uuids of a million devices."""
    return await crowd_of(installation, MILLION)


async def crowd_of(installation: Installation, count: int) -> str:
    prefix = made.unique("crowd") + "-"
    await made.devices(installation, prefix, count)
    return prefix


@seen("light")
async def test_one_of_many_devices_is_pinned(
    person: Person, installation: Installation, crowd: str
) -> None:
    await one_is_pinned(person, installation, crowd)


@pytest.mark.heavy
@seen("light")
async def test_one_of_a_million_devices_is_pinned(
    person: Person, installation: Installation, million: str
) -> None:
    await one_is_pinned(person, installation, million)


async def one_is_pinned(person: Person, installation: Installation, crowd: str) -> None:
    name = made.unique("Press")
    uuid = f"{crowd}{name}"
    before = (await installation.device(uuid, deviceName=name))["broker"]
    broker = await made.broker(installation)
    await person.signs_in()
    search = person.page.get_by_role("searchbox", name="Search everything")
    await search.fill(crowd)
    await search.press("Enter")
    await person.sees(crowd)
    await person.looks()
    await person.goes_to("Devices")
    await person.types("Uuid or name begins with", crowd)
    await person.is_told("status", "counting ends here")
    await person.types("Uuid or name begins with", name.lower())
    await person.is_told("status", "1 device")
    await person.follows(name)
    await person.reads(name)
    await expect(person.page.get_by_role("listitem").filter(has_text="decides")).to_contain_text(
        "Default"
    )
    await person.chooses("Broker", broker["name"])
    await person.presses("Save the pin")
    await person.is_told("status", "Saved.")
    await person.sees(f"Pinned to {broker['name']}")
    assert (await installation.asks(uuid))["broker"] == "mqtt://hall.example.com:1883"

    await person.page.reload()
    answer = person.page.get_by_role("region", name="Last answer")
    await expect(answer).to_contain_text(broker["name"])
    await person.chooses("Broker", "No pin")
    await person.presses("Save the pin")
    await person.is_told("status", "Saved.")
    await person.presses("Undo")
    await person.sees(f"Pinned to {broker['name']}")
    await person.presses("Undo")
    await person.sees("No pin:")
    assert (await installation.asks(uuid))["broker"] == before


@seen("dark")
async def test_many_devices_move_and_move_back(person: Person, installation: Installation) -> None:
    prefix = made.unique("bulk") + "-"
    fleet = await made.devices(installation, prefix, 30)
    broker = await made.broker(installation)
    await person.signs_in()
    await person.goes_to("Devices")
    await person.types("Uuid or name begins with", prefix)
    await person.is_told("status", "30 devices")
    await person.clicks(person.within.get_by_text("Filters", exact=True))
    await person.follows("Type: not gateway-2")
    await person.is_told("status", "10 devices", "not gateway-2")
    await person.follows("Move all 10 that match…")
    await person.reads("Move devices")
    await person.sees("10 devices match now")
    await person.chooses("Broker", broker["name"])
    await person.presses("See what it would do")
    await person.reads(f"Pin to {broker['name']}")
    await person.sees("10 devices would get another pin. Nothing has changed yet.")
    await person.looks()
    assert installation.database.execute(PINS, fleet) == [(None, 30)]
    await person.presses("Start: move 10 devices")
    # The page asks for itself until the job has ended.
    await person.sees("Done", "100.0 %")
    await person.looks()
    assert dict(installation.database.execute(PINS, fleet)) == {broker["id"]: 10, None: 20}
    await person.follows("Undo…")
    await person.sees("This gives 10 devices their previous pin back.")
    await person.looks()
    await person.presses("Undo the job")
    await person.sees("Done", "got their previous pin back")
    await person.looks()
    assert installation.database.execute(PINS, fleet) == [(None, 30)]


@seen("light")
async def test_a_revoked_password_ends_the_session_at_the_broker(
    person: Person, installation: Installation
) -> None:
    uuid = made.unique("revoked")
    old = await installation.device(uuid, deviceName=uuid.capitalize())
    async with asyncio.timeout(PATIENCE_S):
        while not await is_let_in(old):
            await asyncio.sleep(0.1)
    client = client_of(old)
    async with client:
        await client.subscribe(old["topics"]["subscribe"][0], qos=1)
        await person.signs_in()
        await person.goes_to("Devices")
        await person.types("Uuid or name begins with", uuid)
        await person.is_told("status", "1 device")
        await person.follows(uuid.capitalize())
        await person.reads(uuid.capitalize())
        await person.follows("Revoke…")
        await person.reads("Revoke its MQTT password")
        await person.presses("Revoke the password")
        with pytest.raises(aiomqtt.MqttError):
            await asyncio.wait_for(anext(client.messages), PATIENCE_S)
    await person.is_told("status", "The MQTT password has ended.")
    assert not await is_let_in(old)
    new = await installation.asks(uuid)
    async with asyncio.timeout(PATIENCE_S):
        while not await is_let_in(new):
            await asyncio.sleep(0.1)

    await person.goes_to("Brokers")
    await person.follows("Local Broker")
    await person.follows("In step")
    await person.sees("Sessions still to end", "Median")
    await person.looks()


async def is_let_in(mqtt: dict[str, object]) -> bool:
    try:
        async with client_of(mqtt):
            return True
    except aiomqtt.MqttError:
        return False
