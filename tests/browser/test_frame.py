"""The frame of every page: keys, theme, times, and how pages follow one another."""

import re
from datetime import datetime, timedelta, timezone

from playwright.async_api import expect

from tests.browser.visits import Visits
from tests.stack import Stack

# Numbers what Tab has to reach, and keeps how it looks without the focus.
MARK = """() => {
  window.look = (element) => {
    const {outline, boxShadow, borderColor} = getComputedStyle(element.closest(".find") ?? element);
    return [outline, boxShadow, borderColor].join();
  };
  const selector = "a[href], button, input:not([type=hidden]), select, textarea, [tabindex='0']";
  window.wanted = [...document.querySelectorAll(selector)]
    .filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.closest("dialog"));
  window.looks = wanted.map(look);
  return wanted.map((_, number) => number);
}"""
FOCUSED = """() => {
  const number = wanted.indexOf(document.activeElement);
  return number < 0 ? [null, false] : [number, look(document.activeElement) !== looks[number]];
}"""


async def test_keys(visits: Visits) -> None:
    page = await visits.signed_in()
    # The whole page is not loaded again: a mark that a script left stays.
    await page.evaluate("() => { window.mark = true }")
    await page.keyboard.press("/")
    search = page.get_by_role("searchbox", name="Search everything")
    await expect(search).to_be_focused()
    await page.keyboard.type("gb?/")
    await expect(search).to_have_value("gb?/")
    await search.blur()

    await page.keyboard.press("g")
    await page.keyboard.press("b")
    await expect(page).to_have_url(re.compile(r"/console/brokers$"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Brokers")
    await expect(page).to_have_title("Brokers · Mooring")
    menu = page.get_by_role("navigation", name="Console", exact=True)
    await expect(menu.get_by_role("link", name="Brokers")).to_have_attribute("aria-current", "page")
    assert await page.evaluate("() => window.mark")

    await page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    await expect(dialog).to_be_visible()
    await page.keyboard.press("g")
    await page.keyboard.press("o")
    await expect(dialog).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await page.keyboard.press("g")
    await page.keyboard.press("o")
    await expect(page).to_have_url(re.compile(r"/console$"))

    await page.keyboard.press("/")
    await page.keyboard.type("no such thing")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(r"/console/search\?q=no\+such\+thing$"))
    await expect(page.get_by_text("Nothing matches")).to_be_visible()
    # The page of the search shows what matches while a person types, and keeps it in the address.
    await page.get_by_role("searchbox", name="Name, uuid").fill("rollouts")
    found = page.get_by_role("region", name="Pages").get_by_role("link", name="Rollouts")
    await expect(found).to_be_visible()
    await expect(page).to_have_url(re.compile(r"/console/search\?q=rollouts$"))


async def test_the_keyboard_alone_reaches_everything(visits: Visits, stack: Stack) -> None:
    page = await visits.page()
    await page.goto("/console")
    await page.keyboard.type(stack.admin_token)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.keyboard.press("Tab")
    assert await page.evaluate("() => document.activeElement.closest('main') !== null")

    # Every link and button is reached by Tab, and shows that it has the focus.
    await page.goto("/console/brokers")
    wanted = await page.evaluate(MARK)
    reached = set()
    for _ in range(2 * len(wanted)):
        await page.keyboard.press("Tab")
        number, is_shown = await page.evaluate(FOCUSED)
        if number is not None:
            assert is_shown, await page.evaluate("() => document.activeElement.outerHTML")
            reached.add(number)
    assert reached == set(wanted)

    # A page that follows has the focus, so that reading goes on there.
    await page.get_by_role("link", name="Overview").first.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await expect(page.locator("#main")).to_be_focused()


async def test_the_theme_is_chosen_and_kept(visits: Visits) -> None:
    page = await visits.signed_in(theme="dark")

    async def is_dark() -> bool:
        colour = await page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
        return red + green + blue < 3 * 128

    assert await is_dark()
    await page.get_by_role("button", name="Theme: as the system").click()
    await expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert not await is_dark()
    await page.get_by_role("link", name="Brokers").first.click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Brokers")
    await expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    await page.reload()
    assert not await is_dark()
    await page.get_by_role("button", name="Theme: light").click()
    assert await is_dark()
    await page.get_by_role("button", name="Theme: dark").click()
    await expect(page.get_by_role("button", name="Theme: as the system")).to_be_visible()
    assert await is_dark()


async def test_times_are_local_and_utc_is_their_title(visits: Visits, stack: Stack) -> None:
    page = await visits.signed_in("/console/menu", timezone="Asia/Kolkata")

    async def is_local() -> None:
        time = page.locator("time").first
        utc = datetime.fromisoformat(await time.get_attribute("datetime") or "")
        assert utc.utcoffset() == timedelta(0)
        local = utc.astimezone(timezone(timedelta(hours=5, minutes=30)))
        await expect(time).to_have_attribute("title", utc.strftime("%d %b %Y, %H:%M UTC"))
        await expect(time).to_contain_text(local.strftime("%H:%M"))
        await expect(time).to_contain_text(f"{local.day} {local:%b}")

    await is_local()
    # Also on a page that htmx put into this one, the same or another.
    await page.get_by_role("link", name="Overview").first.click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await page.go_back()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Menu")
    await is_local()
