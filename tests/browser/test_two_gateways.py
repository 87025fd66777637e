"""Two gateway processes behind one address: a session is the same at both, and ends at both."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.browser.balancer import Balancer, balancing
from tests.browser.guard import Guard
from tests.browser.person import Person, seen
from tests.chaos.replicas import running, two_of
from tests.served import Served
from tests.stack import Stack


@pytest_asyncio.fixture(loop_scope="session")
async def balancer(stack: Stack, tmp_path: Path) -> AsyncIterator[Balancer]:
    """The proxy in front of two gateways, whose neighbours are those of `stack`."""
    gateways = two_of("gateway", stack.gateway_config, tmp_path)
    async with running(*gateways), balancing([one.address for one in gateways]) as proxy:
        yield proxy


@pytest.fixture
def served(stack: Stack, balancer: Balancer) -> Served:
    """The gateways behind the proxy."""
    stack.gateway_url = balancer.url
    return stack


@seen("light")
async def test_a_session_is_the_same_at_both_and_ends_at_both(
    person: Person, stack: Stack, balancer: Balancer, guard: Guard
) -> None:
    guard.expect(401)
    page = person.page
    token = await stack.token(name="Ada")
    balancer.only(0)
    await page.goto("/console/fleets/-/new")
    await person.types("API token", token)
    await person.presses("Sign in")
    await person.reads("New fleet")
    balancer.only(1)
    await person.types("Id", "north")
    await person.types("Name", "North")
    await person.presses("Make the fleet")
    await person.reads("North")
    balancer.only(None)
    before = list(balancer.counts)
    await person.goes_to("Overview")
    await person.goes_to("Devices")
    await person.goes_to("Fleets")
    await person.follows("North")
    await person.reads("North")
    after = balancer.counts
    assert all(now > then for now, then in zip(after, before, strict=True)), (before, after)

    tokens = (await stack.admin("GET", "/tokens")).json()["items"]
    [token_id] = [one["id"] for one in tokens if one["name"] == "Ada"]
    assert (await stack.admin("DELETE", f"/tokens/{token_id}")).status_code == 204
    for number in (0, 1):
        balancer.only(number)
        await person.types("Name", f"Never stored {number}")
        await person.presses("Save")
        dialog = page.get_by_role("dialog", name="Your session has ended")
        await expect(dialog).to_be_visible()
        await person.looks()
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        asked = await page.request.get("/console", max_redirects=0)
        assert "/console/sign-in" in asked.headers["location"]
    assert (await stack.admin("GET", "/fleets/north")).json()["name"] == "North"
