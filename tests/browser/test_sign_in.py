"""Signing in, staying signed in while something is typed, and signing out."""

import re

from playwright.async_api import Locator, Page, expect

from tests.browser.guard import Guard
from tests.browser.visits import Visits
from tests.stack import Stack


async def sign_in(page: Page | Locator, token: str) -> None:
    await page.get_by_label("API token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


async def test_a_token_leads_to_the_page_that_was_asked_for(visits: Visits, stack: Stack) -> None:
    page = await visits.page()
    await page.goto("/console/brokers?name=Local")
    await sign_in(page, f"{stack.admin_token}x")
    await expect(page.get_by_role("alert")).to_contain_text("TOKEN_UNKNOWN")
    await sign_in(page, stack.admin_token)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Brokers")
    await expect(page).to_have_url(re.compile(r"/console/brokers\?name=Local$"))
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("API token")).to_be_focused()
    await page.goto("/console")
    await expect(page).to_have_url(re.compile(r"/console/sign-in"))


async def test_a_link_leads_to_the_console_once(visits: Visits, stack: Stack) -> None:
    path = (await stack.admin("POST", "/sign-in-codes")).json()["path"]
    page = await visits.page()
    await page.goto(path)
    await page.get_by_role("button", name="Go to the console").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    # It is used up for everybody else who has seen it.
    other = await visits.page()
    await other.goto(path)
    await other.get_by_role("button", name="Go to the console").click()
    await expect(other.get_by_role("alert")).to_contain_text("SIGN_IN_CODE_UNKNOWN")


async def test_what_was_typed_is_sent_after_signing_in_again(
    visits: Visits, stack: Stack, guard: Guard
) -> None:
    guard.expect(401)
    page = await visits.signed_in("/console/brokers")
    name = page.get_by_label("Name contains")
    await name.fill("no such broker")
    visits.end_sessions()
    await name.press("Enter")
    dialog = page.get_by_role("dialog", name="Your session has ended")
    await expect(dialog).to_be_visible()
    await expect(dialog.get_by_label("API token")).to_be_focused()
    await sign_in(dialog, f"{stack.admin_token}x")
    await expect(dialog.get_by_role("alert")).to_be_visible()
    await expect(name).to_have_value("no such broker")
    await sign_in(dialog, stack.admin_token)
    await expect(page.get_by_text("No broker matches these filters.")).to_be_visible()
    await expect(dialog).to_be_hidden()
    await expect(name).to_have_value("no such broker")
    await expect(page).to_have_url(re.compile(r"/console/brokers\?name=no\+such\+broker\b"))


async def test_without_scripts_a_session_that_ended_leads_to_the_sign_in(
    visits: Visits, stack: Stack
) -> None:
    page = await visits.signed_in("/console/brokers", scripts=False)
    visits.end_sessions()
    await page.get_by_label("Name contains").fill("Local")
    await page.get_by_role("button", name="Filter").click()
    await sign_in(page, stack.admin_token)
    await expect(page).to_have_url(re.compile(r"/console/brokers\?name=Local\b"))
    await expect(page.get_by_role("link", name="Local Broker")).to_be_visible()
