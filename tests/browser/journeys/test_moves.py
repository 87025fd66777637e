"""A fleet that moves in waves and goes back, and a certificate that is replaced safely."""

import trustme
from playwright.async_api import expect

from tests.browser.guard import Guard
from tests.browser.journeys import made
from tests.browser.journeys.installation import Installation
from tests.browser.person import Person, seen

# With a random salt, half of them are all or none less than once in 500,000 times.
DEVICES = 20
OLD, NEW = "mqtt://old.example.com:1883", "mqtt://new.example.com:1883"


@seen("dark")
async def test_a_fleet_moves_in_waves_and_goes_back(
    person: Person, installation: Installation, guard: Guard
) -> None:
    guard.expect(422)
    old = await made.broker(installation, host="old.example.com")
    new = await made.broker(installation, host="new.example.com")
    fleet, key = await made.fleet(installation, mqtt_broker_id=old["id"])
    uuids = [f"{fleet}-{number}" for number in range(DEVICES)]
    for uuid in uuids:
        await installation.device(uuid, key=key)

    async def moved() -> int:
        answers = [(await installation.asks(uuid))["broker"] for uuid in uuids]
        assert set(answers) <= {OLD, NEW}
        return answers.count(NEW)

    await person.signs_in()
    await person.goes_to("Fleets")
    await person.follows(fleet.capitalize())
    await person.reads(fleet.capitalize())
    await person.chooses("To the broker", new["name"])
    await person.types("First wave", "200")
    await person.presses("Begin")
    await expect(person.field("First wave")).to_have_attribute("aria-invalid", "true")
    await person.looks()
    await person.chooses("To the broker", new["name"])
    await person.types("First wave", "50")
    await person.presses("Begin")
    await person.sees(f"of {DEVICES} devices; 0 got this broker in their last answer.")
    await person.looks()
    some = await moved()
    assert 0 < some < DEVICES
    await person.page.reload()
    await person.sees(f"{some} got this broker in their last answer.")
    await person.presses("100 %")
    await person.sees(f"about {DEVICES} of {DEVICES} devices")
    assert await moved() == DEVICES
    await person.clicks(person.page.get_by_role("button", name="1 %"))
    await person.sees("1 % to")
    assert await moved() < some
    await person.follows("Stop and go back…")
    await person.reads("Stop the rollout and go back?")
    await person.presses("Stop and go back")
    await person.sees("Take the fleet to another broker in waves.")
    await person.looks()
    assert await moved() == 0


@seen("light")
async def test_a_certificate_is_replaced_when_that_is_safe(
    person: Person, installation: Installation, guard: Guard
) -> None:
    guard.expect(422)
    old, new = (trustme.CA().cert_pem.bytes().decode() for _ in range(2))
    names = made.unique("Plant CA"), made.unique("Plant CA")
    certificate = await installation.made("/certificates", name=names[0], kind="ca", pem=old)
    tls = {"protocol": "mqtts", "port": 8883, "ca_certificate_id": certificate["id"]}
    broker = await made.broker(installation, **tls)
    fleet, key = await made.fleet(installation, mqtt_broker_id=broker["id"])
    uuids = [f"{fleet}-{number}" for number in range(3)]
    for uuid in uuids:
        mqtt = await installation.device(uuid, key=key)
        assert mqtt["brokerConfig"]["caCert"] == old

    await person.signs_in()
    await person.goes_to("Certificates")
    await person.follows(names[0])
    await person.reads(names[0])
    await person.follows("Replace…")
    await person.reads(f"Replace {names[0]}")
    await person.types("Certificate in PEM", new.replace("M", "*", 3))
    await person.presses("Stage")
    await expect(person.field("Certificate in PEM")).to_have_attribute("aria-invalid", "true")
    await person.looks()
    await person.types("Certificate in PEM", new)
    await person.types("Name", names[1])
    await person.presses("Stage")
    await person.sees("0 of 3 devices have the new CA", "Not safe yet")
    await expect(person.page.get_by_role("button", name="Cut over")).to_be_disabled()
    await person.looks()

    for uuid in uuids[:2]:
        assert (await installation.asks(uuid))["brokerConfig"]["caCert"].count("BEGIN") == 2
    await person.page.reload()
    await person.sees("2 of 3 devices have the new CA", "Not safe yet")
    await person.follows("1 device lacks it")
    await person.reads("Devices")
    await person.sees(uuids[2])
    await installation.asks(uuids[2])
    await person.follows("Rotation")
    await person.sees("3 of 3 devices have the new CA", "Safe now.")
    await person.looks()
    await person.presses("Cut over")
    await expect(person.page.get_by_role("button", name="Cut over")).to_be_hidden()
    await person.looks()
    for uuid in uuids:
        assert (await installation.asks(uuid))["brokerConfig"]["caCert"] == new
    stored = await installation.found(f"/brokers/{broker['id']}")
    assert stored["ca_cert"] == new
