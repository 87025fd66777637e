"""A person at a page of the console, who goes by what the page shows: names, labels and texts."""

from dataclasses import dataclass

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.accessibility import faults
from tests.browser.visits import PHONE, WIDE, Theme, Visits

# More than any page of a journey has elements that Tab stops at.
TABS = 200
IS_FOCUSED = "(element) => element === document.activeElement"
KIND = "(element) => element.type ?? element.localName"


@dataclass(frozen=True)
class View:
    """How a person sees the console, and with what."""

    size: tuple[int, int]
    theme: Theme
    has_keyboard_only: bool = False

    def __str__(self) -> str:
        keyboard = "-keyboard" if self.has_keyboard_only else ""
        return f"{self.size[0]}-{self.theme}{keyboard}"


def seen(wide: Theme, *, by_keyboard: bool = False) -> pytest.MarkDecorator:
    """Runs a test on a wide screen with this theme and on a phone with the other one.

    With `by_keyboard` also without a mouse.
    """
    other: Theme = "dark" if wide == "light" else "light"
    views = [View(WIDE, wide), View(PHONE, other)]
    if by_keyboard:
        views.append(View(WIDE, other, has_keyboard_only=True))
    return pytest.mark.parametrize("person", views, ids=str, indirect=True)


@dataclass
class Person:
    """Uses a mouse or a finger, or only the keyboard."""

    visits: Visits
    page: Page
    theme: Theme
    has_keyboard_only: bool = False

    async def signs_in(self, path: str = "/console", name: str = "") -> None:
        """Opens a page with a session of a new admin's token, which has this name."""
        await self.visits.begin_session(self.page, await self.visits.served.token(name=name))
        await self.page.goto(path)
        await self.looks()

    async def signs_out(self) -> None:
        """Uses the button below the menu, or that of the page behind "More"."""
        button = self.page.get_by_role("button", name="Sign out")
        if not await button.first.is_visible():
            await self.clicks(self.page.get_by_role("link", name="More"))
        await self.clicks(button.filter(visible=True))
        await self.reads("Sign in")

    async def goes_to(self, name: str) -> None:
        """Follows a link of the menu, which is behind another link on a phone."""
        within = self.page.get_by_role("navigation", name="Console", exact=True)
        if not await within.is_visible():
            await self.clicks(self.page.get_by_role("link", name="More"))
            within = self.page.get_by_role("main")
        await self.clicks(within.get_by_role("link", name=name, exact=True))
        await self.reads(name)

    async def reads(self, heading: str) -> None:
        """Waits for the page with this first heading, and looks at it."""
        await expect(self.page.get_by_role("heading", level=1)).to_have_text(heading)
        await self.looks()

    async def looks(self) -> None:
        """Fails if the page as it is now would keep people from using it."""
        found = await faults(self.page)
        await self.page.emulate_media(color_scheme=self.theme)
        assert not found, "\n".join([self.page.url, *found])

    async def follows(self, name: str) -> None:
        """Follows a link of the page's main part."""
        await self.clicks(self.page.get_by_role("main").get_by_role("link", name=name, exact=True))

    async def presses(self, name: str) -> None:
        """Presses a button of the page's main part, or of the dialog that is open."""
        await self.clicks(self.within.get_by_role("button", name=name, exact=True))

    async def types(self, label: str, text: str) -> None:
        """Replaces the text of a field; its label begins with `label`."""
        field = self.field(label)
        if self.has_keyboard_only:
            await self.reaches(field)
            await self.page.keyboard.press("ControlOrMeta+A")
            await self.page.keyboard.insert_text(text)
        else:
            await field.fill(text)

    async def chooses(self, label: str, text: str) -> None:
        """Chooses an option of a list."""
        field = self.field(label)
        if self.has_keyboard_only:
            await self.reaches(field)
            await self.page.keyboard.type(text)
        else:
            await field.select_option(label=text)
        await expect(field.locator("option:checked")).to_have_text(text)

    async def clicks(self, target: Locator) -> None:
        """Uses a link, a button or a box."""
        if self.has_keyboard_only:
            await self.reaches(target)
            is_box = await target.evaluate(KIND) == "checkbox"
            await self.page.keyboard.press("Space" if is_box else "Enter")
        else:
            await target.click()

    async def reaches(self, target: Locator) -> None:
        """Presses Tab until the element has the focus."""
        await expect(target).to_be_visible()
        for _ in range(TABS):
            if await target.evaluate(IS_FOCUSED):
                return
            await self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {target}")

    async def sees(self, *texts: str) -> None:
        """Waits for texts of the main part or of the dialog."""
        for text in texts:
            await expect(self.within).to_contain_text(text)

    async def is_told(self, role: str, *texts: str) -> None:
        """Waits for an alert or a status with these texts, and looks at the page with it."""
        for text in texts:
            shown = self.within.get_by_role(role).filter(has_text=text)  # type: ignore[arg-type]
            await expect(shown.first).to_be_visible()
        await self.looks()

    def field(self, label: str) -> Locator:
        """The field whose label begins with this text."""
        # A part of the page may have such a label too.
        control = self.page.locator("input, select, textarea")
        return self.within.get_by_label(label).and_(control).first

    def rows(self, table: str) -> Locator:
        """The rows of a table, without its head."""
        region = self.page.get_by_role("region", name=f"{table}, as a table")
        return region.get_by_role("row").filter(has=self.page.get_by_role("cell"))

    @property
    def within(self) -> Locator:
        """The main part of the page, or the dialog that is open over it."""
        # A dialog comes after the main part, or is in it.
        return self.page.locator("main, dialog[open]").last
