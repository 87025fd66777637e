"""Parts of a page that are asked for after it: the filters of the devices and how many match."""

import asyncio
import re

import pytest_asyncio
from playwright.async_api import Page, Route, expect

from gateway.console.devices import ON_A_PAGE
from tests.browser.guard import NO_ANSWER, Guard
from tests.browser.test_live import is_live
from tests.browser.visits import Visits
from tests.stack import Stack

# More than a page shows.
DEVICES = ON_A_PAGE + 2
LIST = re.compile(r"/console/devices$")
FILTERS = re.compile(r"/console/device-filters\?")
COUNT = re.compile(r"/console/device-count\?")
# The element that has the focus, in the page as it is now.
IS_STILL_FOCUSED = "() => window.focused === document.activeElement"


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(stack: Stack) -> None:
    """Devices of two types."""
    answers = await asyncio.gather(
        *(
            stack.register(f"d-{number:02}", deviceType="pump" if number % 2 else "valve")
            for number in range(DEVICES)
        )
    )
    assert {answer.status_code for answer in answers} == {201}


def asked_for(page: Page, path: re.Pattern[str]) -> list[str]:
    """The requests for a page with this path from now on, while they come."""
    found: list[str] = []
    page.on("request", lambda asked: found.append(asked.url) if path.search(asked.url) else None)
    return found


async def test_filters_come_when_they_are_opened_and_stay_while_the_page_changes(
    visits: Visits, stack: Stack, crowd: None
) -> None:
    page = await visits.page()
    await visits.begin_session(page, await stack.token())
    asked, counted, lists = (asked_for(page, path) for path in (FILTERS, COUNT, LIST))
    await page.goto("/console/devices")
    await is_live(page)
    status = page.get_by_role("status").filter(has_text="device")
    await expect(status).to_have_text(f"{DEVICES} devices")
    await expect(
        page.get_by_role("link", name=f"Move all {DEVICES} that match…", exact=True)
    ).to_be_visible()
    # One request fills both places with the count.
    assert len(counted) <= len(lists)
    assert not asked
    panel = page.locator("#facets")
    await page.locator("summary").filter(has_text="Filters").press("Enter")
    link = panel.get_by_role("link", name="Type: not pump")
    await expect(link).to_be_visible()
    assert asked
    # The page changes around the focus, and the filters with it.
    await link.focus()
    await page.evaluate("() => { window.focused = document.activeElement }")
    assert (await stack.register("d-new", deviceType="engine")).status_code == 201
    await expect(panel.get_by_role("link", name="engine", exact=True)).to_be_visible()
    await expect(status).to_have_text(f"{DEVICES + 1} devices")
    await expect(link).to_be_focused()
    assert await page.evaluate(IS_STILL_FOCUSED)
    # A search is a page of its own: the filters stay open, and lead on from it.
    await page.get_by_role("searchbox", name="Uuid or name begins with").fill("d-new")
    await expect(status).to_contain_text("1 device")
    await expect(link).to_have_count(0)
    await panel.get_by_role("link", name="engine", exact=True).click()
    await expect(page).to_have_url(re.compile(r"\?search=d-new&device_type=engine$"))
    await expect(panel.get_by_role("link", name="engine", exact=True)).to_have_attribute(
        "aria-current", "true"
    )
    # Going back shows the list as it was, with what can be added to it.
    await page.go_back()
    await expect(page).to_have_url(re.compile(r"\?search=d-new$"))
    await page.get_by_role("link", name="Show all").click()
    await expect(status).to_have_text(f"{DEVICES + 1} devices")
    await page.goto("/console/devices?device_type=pump")
    await expect(panel.get_by_role("link", name="Type: not pump")).to_be_visible()


async def test_links_of_previous_conditions_lead_nowhere_and_failures_are_made_good(
    visits: Visits, guard: Guard, crowd: None
) -> None:
    guard.expect(NO_ANSWER)
    page = await visits.signed_in("/console/devices?is_active=true")
    panel = page.locator("#facets")
    pump = panel.get_by_role("link", name="pump", exact=True)
    await expect(pump).to_be_visible()
    answering = asyncio.Event()

    async def wait(route: Route) -> None:
        if answering.is_set():
            await route.continue_()
        else:
            await route.abort()

    await page.route(FILTERS, wait)
    await page.get_by_role("searchbox", name="Uuid or name begins with").fill("d-0")
    await expect(page.get_by_role("status").filter(has_text="10 devices")).to_be_visible()
    await expect(panel).to_have_attribute("data-old", "")
    await pump.click()
    answering.set()
    await expect(panel).not_to_have_attribute("data-old", "")
    await expect(page).not_to_have_url(re.compile("device_type"))
    await pump.click()
    await expect(page).to_have_url(re.compile(r"search=d-0&.*device_type=pump$"))
    await expect(page.get_by_role("status").filter(has_text="5 devices")).to_be_visible()


async def test_without_scripts_a_link_leads_to_the_filters(visits: Visits, crowd: None) -> None:
    page = await visits.signed_in("/console/devices", scripts=False)
    await page.get_by_role("link", name="Count the devices").click()
    await expect(page.get_by_role("status")).to_have_text(f"{DEVICES} devices")
    await page.get_by_role("link", name="Devices").filter(visible=True).last.click()
    await page.locator("summary").filter(has_text="Filters").click()
    await page.get_by_role("link", name="Show the filters").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Filters of devices")
    await page.get_by_role("link", name="Type: not pump").click()
    await expect(page).to_have_url(re.compile(r"/console/devices\?not_device_type=pump$"))
    await expect(page.get_by_role("status")).to_contain_text(f"{DEVICES // 2} devices")
