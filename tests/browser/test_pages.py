"""Every page that links lead to: that it is there, and that everybody can use it."""

import asyncio

import pytest
from playwright.async_api import Page

from chassis.trust import Access
from tests.browser import demo
from tests.browser.accessibility import faults
from tests.browser.crawl import reachable
from tests.browser.guard import Guard
from tests.browser.visits import PHONE, WIDE, Visits
from tests.stack import Stack

OUTSIDE = ("/console/sign-in", "/console/sign-in/msc_x")
MISSING = "/console/no-such-page"
# These dialogs are the same on every page.
OF_THE_FRAME = {"again", "keys"}
DIALOGS = "() => [...document.querySelectorAll('dialog')].map((d) => d.id)"
# As many as there are cores.
WINDOWS = 2
PEOPLE: tuple[tuple[Access, tuple[str, ...] | None], ...] = (
    (Access.ADMIN, None),
    (Access.OPERATOR, None),
    (Access.VIEWER, None),
    (Access.OPERATOR, ("harbour",)),
    (Access.VIEWER, ("harbour", "hall-4")),
)


async def looked_at(page: Page) -> list[str]:
    """What keeps people from using the page as it is now, wide and on a phone."""
    found = []
    for width, height in (WIDE, PHONE):
        await page.set_viewport_size({"width": width, "height": height})
        found += [f"at {width} px: {line}" for line in await faults(page)]
    return found


async def faults_of(page: Page, paths: list[str]) -> list[str]:
    """What keeps people from using the pages and their dialogs. Removes the paths from the list."""
    found: list[str] = []
    seen: set[str] = set()
    while paths:
        path = paths.pop(0)
        await page.goto(path)
        found += [f"{path} {line}" for line in await looked_at(page)]
        dialogs = set(await page.evaluate(DIALOGS)) - seen
        seen |= dialogs & OF_THE_FRAME
        for dialog in sorted(dialogs):
            await page.evaluate("(id) => document.getElementById(id).showModal()", dialog)
            found += [f"{path}, {dialog}, {line}" for line in await looked_at(page)]
            await page.evaluate("(id) => document.getElementById(id).close()", dialog)
    return found


@pytest.mark.timeout(300)
async def test_everybody_can_use_every_page(visits: Visits, stack: Stack, guard: Guard) -> None:
    guard.expect(404)
    await demo.fill(stack)
    windows = [await visits.signed_in() for _ in range(WINDOWS)]
    pages = await reachable(windows[0].request)
    assert {"/console", "/console/brokers", "/console/menu"} <= {page.path for page in pages}
    paths = [page.path for page in pages if page.media_type == "text/html"]
    paths += [*OUTSIDE, MISSING]
    found = await asyncio.gather(*(faults_of(window, paths) for window in windows))
    assert not (lines := [line for one in found for line in one]), "\n".join(lines)


@pytest.mark.timeout(300)
async def test_no_link_leads_to_a_refusal(visits: Visits, stack: Stack) -> None:
    await demo.fill(stack)
    refused = []
    for role, fleets in PEOPLE:
        page = await visits.signed_in(role=role, fleets=fleets)
        pages = await reachable(page.request)
        assert len(pages) > 2
        refused += [f"{role.name} {fleets}: {one}" for one in pages if one.status >= 300]
    assert not refused, "\n".join(refused)
