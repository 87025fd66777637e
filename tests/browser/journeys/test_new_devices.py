"""A key for a first device, and a spreadsheet's file with devices."""

from playwright.async_api import expect

from tests.browser.guard import Guard
from tests.browser.journeys import made
from tests.browser.journeys.installation import Installation
from tests.browser.person import Person, seen
from tests.shell import pasted

# The device in the command that the page of a new key shows.
FIRST = "test-device-1"


@seen("light")
async def test_a_new_key_registers_a_first_device_and_no_second_one(
    person: Person, installation: Installation, guard: Guard
) -> None:
    guard.expect(422)
    fleet, _ = await made.fleet(installation)
    description = made.unique("Installers")
    await person.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await person.signs_in()
    await person.goes_to("Fleets")
    await person.follows(fleet.capitalize())
    await person.follows("New key")
    await person.reads("New provisioning key")
    await expect(person.field("Fleet")).to_have_value(fleet)
    await person.types("Description", description)
    await person.types("Devices at most", "one")
    await person.presses("Make the key")
    await expect(person.field("Devices at most")).to_have_attribute("aria-invalid", "true")
    await person.looks()
    await person.types("Devices at most", "1")
    await person.presses("Make the key")
    await person.reads("The key is made")
    await person.clicks(person.page.get_by_role("button", name="Copy").last)
    await person.sees("Copied")
    command = await person.page.evaluate("() => navigator.clipboard.readText()")
    try:
        assert f'"uuid":"{FIRST}"' in pasted(command, "curl", "openssl")
        await person.follows("I have copied it")
        await person.reads(description)
        await person.sees("1 of 1", "Used up")
        # The key itself is on no other page.
        assert (await person.within.inner_text()).count("mpk_") == 0
        refused = pasted(command.replace(FIRST, "test-device-2"), "curl", "openssl")
        assert "PROVISIONING_KEY_USED_UP" in refused
        await person.goes_to("Overview")
        await person.sees(description)
        await person.goes_to("Devices")
        await person.types("Uuid or name begins with", FIRST)
        await person.is_told("status", "1 device")
    finally:
        # Others need the name.
        assert (await installation.admin("DELETE", f"/devices/{FIRST}")).status_code == 204


@seen("dark")
async def test_a_spreadsheets_file_is_checked_before_anything_is_written(
    person: Person, installation: Installation
) -> None:
    fleet, _ = await made.fleet(installation)
    there = f"{fleet}-there"
    await installation.device(there)
    lines = [
        "uuid;fleet_id;device_name",
        f"{fleet}-1;{fleet};Säge 1",
        f"{fleet}-2;{fleet};Säge; 2",
        f"{fleet} 3;{fleet};Säge 3",
        f"{fleet}-4;no-such-fleet;Säge 4",
        f"{fleet}-1;{fleet};Säge 1 again",
        f"{there};{fleet};Säge 5",
        f'{fleet}-6;{fleet};"Säge; 6"',
    ]
    # As spreadsheets write it: a mark at the beginning, and the line ends of Windows.
    file = "\r\n".join(lines).encode("utf-8-sig")
    before = await listed(installation, fleet)
    await person.signs_in()
    await person.goes_to("Devices")
    await person.follows("Import")
    await person.reads("Import devices")
    await person.field("A file").set_input_files(
        {"name": "devices.csv", "mimeType": "text/csv", "buffer": file}
    )
    await person.presses("See the verdict for each row")
    await person.sees("What the import would do")
    await person.looks()
    await person.sees("2 new", "2 exist already", "3 refused")
    await expect(person.rows("Rows")).to_have_count(len(lines) - 1)
    for device in (f"{fleet} 3", f"{fleet}-4"):
        row = person.rows("Rows").filter(has_text=device)
        await expect(row).to_contain_text("Refused")
    assert await listed(installation, fleet) == before
    await person.presses("Import 2 devices")
    await person.sees("What the import did", "2 created", "3 refused")
    await person.looks()
    assert await listed(installation, fleet) == sorted([*before, f"{fleet}-1", f"{fleet}-6"])
    await person.follows(f"{fleet}-6")
    await person.reads("Säge; 6")


async def listed(installation: Installation, fleet: str) -> list[str]:
    found = await installation.found(f"/devices?fleet_id={fleet}")
    return sorted(device["uuid"] for device in found["items"])
