"""Who changed a setting, and how it was before."""

import json
from pathlib import Path

from playwright.async_api import expect

from tests.browser.journeys import made
from tests.browser.journeys.installation import Installation
from tests.browser.person import Person, seen


@seen("dark")
async def test_a_change_is_found_in_the_audit_log_and_rolled_back(
    person: Person, installation: Installation, tmp_path: Path
) -> None:
    broker = await made.broker(installation)
    path = f"/brokers/{broker['id']}"
    colleague, name = made.unique("Bea"), made.unique("Ada")
    changed = await installation.http.patch(
        f"/api/v1{path}",
        json={"keep_alive": 15, "region": "north"},
        headers={"Authorization": f"Bearer {await installation.token(name=colleague)}"},
    )
    assert changed.status_code == 200, changed.text
    # Newer changes of other things.
    await made.broker(installation)

    await person.signs_in(name=name)
    await person.goes_to("Audit log")
    await person.types("Action", "broker.")
    await person.types("About", "no-such-broker")
    await person.presses("Filter")
    await person.sees("No line matches these filters.")
    await person.looks()
    await person.types("About", str(broker["id"]))
    await person.presses("Filter")
    await person.sees(colleague, "broker.update", "60", "15")
    await person.looks()
    await person.sees("broker.create")
    await person.types("Token", colleague)
    await person.presses("Filter")
    await expect(person.within).not_to_contain_text("broker.create")
    async with person.page.expect_download() as download:
        await person.follows("Export these")
    file = tmp_path / "lines"
    await (await download.value).save_as(file)
    line, end = (json.loads(text) for text in file.read_text().splitlines())
    assert end == {"complete": True, "lines": 1}
    assert line["actor"] == colleague
    assert line["action"] == "broker.update"
    assert (line["before"]["keep_alive"], line["after"]["keep_alive"]) == (60, 15)

    await person.follows(str(broker["id"]))
    await person.reads(broker["name"])
    await person.follows("History")
    await person.sees(colleague, "revision 1")
    await person.looks()
    await person.follows("Roll back…")
    await person.sees("Roll back at revision 1?", "60")
    await person.looks()
    await person.presses("Roll back")
    await person.sees("revision 3")
    await person.looks()
    stored = await installation.found(path)
    assert (stored["keep_alive"], stored["region"]) == (60, "")
    await person.goes_to("Audit log")
    await person.types("Token", name)
    await person.presses("Filter")
    await person.sees(name, "broker.rollback")
    await person.goes_to("Overview")
    await person.sees(f"{name} rolled back broker {broker['name']}")
