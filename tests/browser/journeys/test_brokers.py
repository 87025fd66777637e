"""Two people who change a broker at the same time, and a default that is swapped and taken back."""

from playwright.async_api import expect

from tests.browser.guard import Guard
from tests.browser.journeys import made
from tests.browser.journeys.installation import Installation
from tests.browser.person import Person, seen


@seen("light")
async def test_the_person_who_saves_later_sees_both_versions(
    person: Person, installation: Installation, guard: Guard
) -> None:
    guard.expect(412)
    broker = await made.broker(installation)
    await person.signs_in()
    await person.goes_to("Brokers")
    await person.follows(broker["name"])
    await person.reads(broker["name"])
    await person.types("Keep alive", "90")
    await person.types("Description", "The hall in the north")
    await person.is_told("status", "2 changes")

    colleague = Person(person.visits, await person.visits.page(), "light")
    await colleague.signs_in(f"/console/brokers/{broker['id']}", name=f"Bea {broker['id']}")
    await colleague.types("Keep alive", "75")
    await colleague.types("Region", "north")
    await colleague.is_told("status", "2 changes")
    await colleague.presses("Save")
    await colleague.is_told("status", "Saved.")

    await person.presses("Save")
    await person.is_told("alert", "Another person has saved this broker meanwhile.")
    await person.sees("yours: 90", "75", "north")
    await expect(person.field("Keep alive")).to_have_value("90")
    await expect(person.field("Description")).to_have_value("The hall in the north")
    # What the colleague alone has changed stays as the colleague saved it.
    await expect(person.field("Region")).to_have_value("north")
    await person.presses("Save")
    await person.is_told("status", "Saved.")
    stored = await installation.found(f"/brokers/{broker['id']}")
    names = ("keep_alive", "description", "region", "revision")
    assert [stored[name] for name in names] == [90, "The hall in the north", "north", 3]
    await person.follows("History")
    await person.sees(f"Bea {broker['id']}", "revision 2", "75")
    await person.looks()


@seen("dark", by_keyboard=True)
async def test_the_default_is_swapped_and_taken_back(
    person: Person, installation: Installation
) -> None:
    [before] = (await installation.found("/brokers?is_default=true"))["items"]
    broker = await made.broker(installation)
    uuid = f"swapped-{broker['id']}"
    assert (await installation.device(uuid))["brokerConfig"]["port"] == before["port"]
    await person.signs_in()
    await person.goes_to("Brokers")
    await person.follows(broker["name"])
    await person.reads(broker["name"])
    await person.follows("Make default…")
    await person.sees(f"Now {before['name']} is the default.", "it as the default")
    await person.looks()
    await person.presses("Make it the default")
    await person.sees("Default")
    assert (await installation.asks(uuid))["broker"] == "mqtt://hall.example.com:1883"

    await person.goes_to("Overview")
    await person.follows(f"Undo the change of broker {broker['name']}")
    await person.reads("Undo the change of the default?")
    await person.sees(broker["name"], before["name"], "will move when asking next")
    await person.presses("Undo")
    await person.reads("Overview")
    assert (await installation.asks(uuid))["brokerConfig"]["port"] == before["port"]
    [default] = (await installation.found("/brokers?is_default=true"))["items"]
    assert default["id"] == before["id"]
