"""Pages that change while they are open, and what they leave alone."""

import asyncio
import copy
import re
from collections.abc import Callable

import httpx2
import pytest
from playwright.async_api import Browser, Page, expect

import gateway.__main__
from chassis.database import engine_of
from gateway.changes import SUBSCRIBERS
from registry_service.bulk.jobs import runner
from registry_service.bulk.jobs.work_store import WorkStore
from tests.browser.accessibility import faults
from tests.browser.guard import NO_ANSWER, Guard
from tests.browser.visits import PHONE, WIDE, Visits
from tests.stack import Stack

PATIENCE_S = 20.0
TABS = 10
LIVE = re.compile(r"^Live$")
BEHIND = re.compile(r"^As of \d\d:\d\d$")
SELECTION = """() => {
  const {id, value, selectionStart, selectionEnd} = document.activeElement;
  return [id, value, selectionStart, selectionEnd];
}"""

# A browser without locks, in which the test says whether a tab is hidden.
WITHOUT_LOCKS = """
  Object.defineProperty(Navigator.prototype, "locks", {value: undefined});
  Object.defineProperty(Document.prototype, "hidden", {get: () => window.isPutAway === true});
"""
PUT_AWAY = """(away) => {
  window.isPutAway = away;
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def subscribers() -> int:
    return int(SUBSCRIBERS._value.get())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def is_live(page: Page) -> None:
    await expect(page.locator("#live")).to_have_text(LIVE)


async def test_ten_tabs_share_a_stream_and_all_show_what_changes(
    visits: Visits, stack: Stack
) -> None:
    first = await visits.signed_in("/console/fleets")
    await is_live(first)
    tabs = [first]
    for _ in range(TABS - 1):
        tab = await first.context.new_page()
        await tab.goto("/console/fleets")
        tabs.append(tab)
    for tab in tabs:
        await is_live(tab)
    assert subscribers() == 1
    await stack.create_fleet("north")
    for tab in tabs:
        await expect(tab.get_by_role("link", name="north")).to_be_visible()
    # Any of them may have the stream: it passes on until the last one is closed.
    while len(tabs) > 1:
        await tabs.pop(0).close()
        await until(lambda: subscribers() == 1)
        if len(tabs) in (TABS - 1, 1):
            name = f"left-{len(tabs)}"
            await stack.create_fleet(name)
            for tab in tabs:
                await expect(tab.get_by_role("link", name=name)).to_be_visible()
    # A page that follows another one is live, too, and one that the browser loads anew.
    await tabs[0].get_by_role("link", name="Brokers").first.click()
    await expect(tabs[0].get_by_role("heading", level=1)).to_have_text("Brokers")
    created = await stack.admin(
        "POST", "/brokers", json={"name": "Late", "protocol": "mqtt", "host": "b", "port": 1}
    )
    assert created.status_code == 201
    await expect(tabs[0].get_by_role("link", name="Late")).to_be_visible()
    await tabs[0].close()
    await until(lambda: subscribers() == 0)


async def test_without_locks_each_visible_tab_has_a_stream(visits: Visits, stack: Stack) -> None:
    first = await visits.page()
    await first.context.add_init_script(WITHOUT_LOCKS)
    await visits.begin_session(first, await stack.token())
    second = await first.context.new_page()
    for tab in (first, second):
        await tab.goto("/console/fleets")
        await is_live(tab)
    await until(lambda: subscribers() == 2)
    await second.evaluate(PUT_AWAY, True)
    await until(lambda: subscribers() == 1)
    await stack.create_fleet("north")
    await expect(first.get_by_role("link", name="north")).to_be_visible()
    await second.evaluate(PUT_AWAY, False)
    await expect(second.get_by_role("link", name="north")).to_be_visible()
    await until(lambda: subscribers() == 2)


async def test_a_page_shows_the_progress_of_its_job(
    visits: Visits, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FIRST_SIZE", 2)
    target = await stack.create_broker("Target")
    for uuid in ("a", "b", "c", "d"):
        assert (await stack.register(uuid)).status_code == 201
    wanted = {"kind": "assign", "mqtt_broker_id": target, "filter": {}}
    job = (await stack.admin("POST", "/jobs", json=wanted)).json()
    assert (await stack.admin("POST", f"/jobs/{job['id']}/start")).status_code == 200
    page = await visits.signed_in(f"/console/jobs/{job['id']}")
    await is_live(page)
    progress = page.get_by_role("region", name="Progress")
    await expect(progress).to_contain_text("0.0 %")
    engine = engine_of(stack.database.url("mooring_registry"))
    worker = runner.Runner(WorkStore(engine), "tests")
    try:
        assert await worker.run()
        await expect(progress).to_contain_text("50.0 %")
        assert await worker.run()
        await expect(progress).to_contain_text("100.0 %")
    finally:
        await worker.stop()
        await engine.dispose()
    await expect(page.get_by_role("link", name="Undo")).to_be_visible()


async def test_what_a_person_is_at_stays(visits: Visits, stack: Stack) -> None:
    path = f"/console/brokers/{stack.default_broker_id}"
    page = await visits.signed_in(path)
    await is_live(page)
    # A form that is edited stays as it is, also after the gateway has checked it.
    field = page.get_by_label("Description")
    await field.fill("half of a sen")
    await expect(page.get_by_text("1 change")).to_be_visible()
    await field.evaluate("(field) => field.setSelectionRange(2, 6, 'backward')")
    before = await page.evaluate(SELECTION)
    changed = await stack.admin(
        "PATCH", path.removeprefix("/console"), json={"keep_alive": 77, "name": "Renamed"}
    )
    assert changed.status_code == 200
    await expect(page.get_by_role("heading", level=1)).to_have_text("Renamed")
    assert await page.evaluate(SELECTION) == before
    await page.keyboard.type("X")
    await expect(field).to_have_value("haXf a sen")
    # The form is still that of the revision that the person saw, so that nothing is overwritten.
    await expect(page.get_by_label("Keep alive")).not_to_have_value("77")
    assert len(before) == 4


async def test_an_edited_form_is_of_the_version_that_the_person_saw(
    visits: Visits, stack: Stack, guard: Guard
) -> None:
    """A page shows what another person changes, and the form stays: it must not undo that."""
    guard.expect(412)
    page = await visits.signed_in("/console/fleets/demo")
    await is_live(page)
    name = page.get_by_label("Name", exact=True)
    await name.fill("mine")
    changed = {"name": "theirs", "uuid_prefix": "n-"}
    assert (await stack.admin("PATCH", "/fleets/demo", json=changed)).status_code == 200
    await expect(page.get_by_role("heading", level=1)).to_have_text("theirs")
    await page.get_by_role("button", name="Save").click()
    told = page.get_by_role("alert")
    await expect(told).to_contain_text("Another person has saved this fleet meanwhile.")
    await expect(told).to_contain_text("yours: mine")
    await expect(name).to_have_value("mine")
    for width, height in (WIDE, PHONE):
        await page.set_viewport_size({"width": width, "height": height})
        assert await faults(page) == []
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    fleet = (await stack.admin("GET", "/fleets/demo")).json()
    assert (fleet["name"], fleet["uuid_prefix"]) == ("mine", "n-")


async def test_focus_selection_dialogs_and_scrolling_stay(visits: Visits, stack: Stack) -> None:
    for number in range(40):
        await stack.create_fleet(f"fleet-{number:02}")
    page = await visits.signed_in("/console/fleets")
    await is_live(page)
    # The focus stays at its row when another one appears before it.
    link = page.get_by_role("link", name="fleet-30")
    await link.focus()
    await page.evaluate("() => { window.focused = document.activeElement }")
    top = await page.evaluate("() => scrollY")
    assert top > 0
    await stack.create_fleet("fleet-00-b")
    await expect(page.get_by_role("link", name="fleet-00-b")).to_have_count(1)
    await expect(link).to_be_focused()
    assert await page.evaluate("() => window.focused === document.activeElement")

    # An open dialog stays open, over a page that changes.
    await page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    await stack.create_fleet("fleet-00-c")
    await expect(page.locator("main").get_by_text("fleet-00-c")).to_have_count(1)
    await expect(dialog).to_be_visible()
    await page.keyboard.press("Escape")

    # The page waits while text is selected.
    await page.evaluate(
        "() => getSelection().selectAllChildren(document.querySelector('main td a.name'))"
    )
    selected = await page.evaluate("() => getSelection().toString()")
    assert selected
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    await stack.create_fleet("fleet-00-d")
    other = await page.context.new_page()
    await other.goto("/console/fleets")
    await stack.create_fleet("fleet-00-e")
    await expect(other.get_by_text("fleet-00-e")).to_have_count(1)
    assert await page.evaluate("() => getSelection().toString()") == selected
    await expect(page.get_by_text("fleet-00-d")).to_have_count(0)
    await page.evaluate("() => getSelection().removeAllRanges()")
    await expect(page.get_by_text("fleet-00-e")).to_have_count(1)


async def test_a_tick_stays_with_its_device(visits: Visits, stack: Stack) -> None:
    for uuid in ("b", "c", "d"):
        assert (await stack.register(uuid)).status_code == 201
    page = await visits.signed_in("/console/devices")
    await is_live(page)
    search = page.get_by_role("searchbox", name="Uuid or name begins with")
    await expect(search).to_be_focused()
    ticks = page.locator("main input[type=checkbox]")
    await expect(ticks).to_have_count(3)
    await page.get_by_role("checkbox", name="c", exact=True).check()
    await search.focus()
    assert (await stack.register("a")).status_code == 201
    await expect(ticks).to_have_count(4)
    ticked = "() => [...document.querySelectorAll('main :checked')].map((box) => box.value)"
    assert await page.evaluate(ticked) == ["c"]
    await expect(search).to_be_focused()


async def test_a_page_recovers_after_the_gateway_has_started_again(
    browser: Browser, stack: Stack
) -> None:
    async with gateway.__main__.running(stack.gateway_config()) as url:
        port = httpx2.URL(url).port
        guard = Guard(url)
        guard.expect(NO_ANSWER)
        visits = Visits(browser, at_url(stack, url), guard)
        page = await visits.signed_in("/console/fleets")
        await is_live(page)
    # The gateway has stopped although a page was open.
    await expect(page.locator("#live")).to_have_text(BEHIND)
    await stack.create_fleet("meanwhile")
    async with gateway.__main__.running(stack.gateway_config(bind_port=port)):
        await is_live(page)
        await expect(page.get_by_role("link", name="meanwhile")).to_be_visible()
        await visits.close()
    assert not guard.faults, "\n".join(guard.faults)


async def test_a_session_that_ends_asks_in_every_tab_and_none_refreshes_it(
    visits: Visits, stack: Stack, guard: Guard
) -> None:
    guard.expect(401)
    token = await stack.token()
    page = await visits.page()
    await visits.begin_session(page, token)
    await page.goto("/console/fleets")
    other = await page.context.new_page()
    await other.goto("/console/brokers")
    name = other.get_by_label("Name contains")
    await name.fill("half")
    await is_live(other)
    await is_live(page)
    stack.database.execute("DELETE FROM console_sessions")
    # The tokens have changed, so that the gateway looks whether the session is valid.
    await stack.token()
    dialog = page.get_by_role("dialog", name="Your session has ended")
    await expect(dialog).to_be_visible()
    # Where a person types, the dialog waits until they have left the field.
    again = other.get_by_role("dialog", name="Your session has ended")
    await other.keyboard.type(" a word")
    await expect(name).to_have_value("half a word")
    await expect(again).to_be_hidden()
    await name.blur()
    await expect(again).to_be_visible()
    # Signing in at one tab is enough.
    await dialog.get_by_label("API token").fill(token)
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(dialog).to_be_hidden()
    await expect(again).to_be_hidden()
    await is_live(page)
    await stack.create_fleet("after")
    await expect(page.get_by_role("link", name="after")).to_be_visible()
    await expect(name).to_have_value("half a word")


def at_url(stack: Stack, url: str) -> Stack:
    """The same services, with another gateway."""
    found = copy.copy(stack)
    found.gateway_url = url
    return found
