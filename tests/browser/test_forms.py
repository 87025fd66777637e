"""What the frame promises for every form: nothing typed is lost, and nothing is sent twice."""

import asyncio
import re
from urllib.parse import parse_qsl

import pytest
from playwright.async_api import Page, Request, Route, expect

from tests.browser.guard import NO_ANSWER, Guard
from tests.browser.visits import Visits
from tests.stack import Stack

# A form that changes something, as pages have them. Signing out is a change that any role may make.
ADD_FORM = """() => {
  const form = document.createElement("form");
  form.method = "post";
  form.action = "/console/sign-out";
  const token = document.querySelector("input[name=form_token]").cloneNode();
  const field = document.createElement("textarea");
  field.name = "note";
  field.ariaLabel = "Note";
  const button = document.createElement("button");
  button.textContent = "Send";
  form.append(token, field, button);
  // Beside what is refreshed: the gateway does not know this form.
  document.getElementById("main").after(form);
  htmx.process(form);
}"""
# A page that is not refreshed when something changes: after the session has ended, a refresh would
# ask the person to sign in, at any moment.
FORM_PAGE = "/console/menu"
TYPED = "Line 1\nLine 2 <b>\"&'; ünïcode"


async def page_with_form(page: Page) -> list[Request]:
    """Puts the form on the page; returns the list of requests that send it."""
    await page.evaluate(ADD_FORM)
    await page.get_by_label("Note").fill(TYPED)
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if is_sent(request) else None)
    return sent


def is_sent(request: Request) -> bool:
    return request.method == "POST" and request.url.endswith("/console/sign-out")


def typed(request: Request) -> str:
    return dict(parse_qsl(request.post_data or ""))["note"].replace("\r\n", "\n")


async def test_a_form_is_sent_after_signing_in_again(
    visits: Visits, stack: Stack, guard: Guard
) -> None:
    guard.expect(401)
    page = await visits.signed_in(FORM_PAGE)
    sent = await page_with_form(page)
    visits.end_sessions()
    await page.get_by_role("button", name="Send").click()
    dialog = page.get_by_role("dialog", name="Your session has ended")
    await dialog.get_by_label("API token").fill(stack.admin_token)
    await expect(page.get_by_label("Note")).to_have_value(TYPED)
    await dialog.get_by_role("button", name="Sign in").click()
    # The change was made: the person is signed out.
    await expect(page).to_have_url(re.compile(r"/console/sign-in$"))
    assert [typed(request) for request in sent] == [TYPED, TYPED]


async def test_a_form_is_not_sent_by_a_person_who_did_not_sign_in_again(
    visits: Visits, stack: Stack, guard: Guard
) -> None:
    guard.expect(401)
    page = await visits.signed_in(FORM_PAGE)
    sent = await page_with_form(page)
    visits.end_sessions()
    await page.get_by_role("button", name="Send").click()
    dialog = page.get_by_role("dialog", name="Your session has ended")
    await expect(dialog).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_label("Note")).to_have_value(TYPED)
    await page.get_by_role("link", name="Overview").first.click()
    await dialog.get_by_label("API token").fill(stack.admin_token)
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    assert len(sent) == 1


async def test_a_form_of_an_earlier_session_is_sent_in_the_present_one(
    visits: Visits, stack: Stack, guard: Guard
) -> None:
    guard.expect(403)
    page = await visits.signed_in(FORM_PAGE)
    sent = await page_with_form(page)
    # In another tab of this browser the person signs in again.
    await visits.begin_session(page, await stack.token())
    await page.get_by_role("button", name="Send").click()
    await expect(page).to_have_url(re.compile(r"/console/sign-in$"))
    assert [typed(request) for request in sent] == [TYPED, TYPED]


@pytest.mark.parametrize("answer", [503, 500, 429, NO_ANSWER])
async def test_a_form_stays_when_the_service_is_away(
    visits: Visits, guard: Guard, answer: int
) -> None:
    guard.expect(answer)
    page = await visits.signed_in(FORM_PAGE)
    sent = await page_with_form(page)

    async def refuse(route: Route) -> None:
        if answer == NO_ANSWER:
            await route.abort("connectionrefused")
        else:
            await route.fulfill(status=answer, body="<h1>away</h1>", content_type="text/html")

    await page.route("**/console/sign-out", refuse)
    await page.get_by_role("button", name="Send").click()
    notice = page.locator("#notice")
    await expect(notice).to_contain_text("try again", ignore_case=True)
    await expect(page.get_by_label("Note")).to_have_value(TYPED)
    await expect(page).to_have_url(re.compile(f"{FORM_PAGE}$"))
    await page.unroute("**/console/sign-out")
    await page.get_by_role("button", name="Send").click()
    await expect(page).to_have_url(re.compile(r"/console/sign-in$"))
    assert [typed(request) for request in sent] == [TYPED, TYPED]


async def test_a_form_is_sent_once(visits: Visits) -> None:
    page = await visits.signed_in(FORM_PAGE)
    sent = await page_with_form(page)
    answered = asyncio.Event()

    async def hold(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route("**/console/sign-out", hold)
    button = page.get_by_role("button", name="Send")
    await button.dblclick()
    await button.click()
    answered.set()
    await expect(page).to_have_url(re.compile(r"/console/sign-in$"))
    assert len(sent) == 1


async def test_fields_of_another_page_keep_nothing_that_was_typed(visits: Visits) -> None:
    page = await visits.signed_in("/console/brokers")
    await page.get_by_label("Name contains").fill("of no other page")
    await page.get_by_role("searchbox").fill("of no other page")
    await page.get_by_role("link", name="Overview").first.click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    for field in await page.get_by_role("searchbox").all():
        await expect(field).to_have_value("")
    await page.get_by_role("link", name="Brokers").first.click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Brokers")
    await expect(page.get_by_label("Name contains")).to_have_value("")


async def test_of_two_links_the_later_one_is_shown(visits: Visits) -> None:
    page = await visits.signed_in()
    answered = asyncio.Event()

    async def hold(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route("**/console/brokers", hold)
    await page.get_by_role("link", name="Brokers", exact=True).first.click()
    await page.evaluate("() => { document.querySelector('a[href=\"/console/menu\"]').click() }")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Menu")
    answered.set()
    await page.unroute_all(behavior="wait")
    await expect(page).to_have_url(re.compile(r"/console/menu$"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Menu")


async def test_a_broker_is_saved_after_signing_in_again(
    visits: Visits, stack: Stack, guard: Guard
) -> None:
    guard.expect(401)
    path = f"/console/brokers/{stack.default_broker_id}"
    page = await visits.signed_in(path)
    keep_alive = page.get_by_label("Keep alive")
    await keep_alive.fill("91")
    await expect(page.get_by_text("1 change")).to_be_visible()
    visits.end_sessions()
    await page.get_by_role("button", name="Save").click()
    dialog = page.get_by_role("dialog", name="Your session has ended")
    await dialog.get_by_label("API token").fill(stack.admin_token)
    await expect(keep_alive).to_have_value("91")
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    await expect(keep_alive).to_have_value("91")
    stored = await stack.admin("GET", f"/brokers/{stack.default_broker_id}")
    assert stored.json()["keep_alive"] == 91
