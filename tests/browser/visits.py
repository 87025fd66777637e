"""People at the console: their tokens, windows and sessions."""

from dataclasses import dataclass, field
from typing import Literal

from playwright.async_api import Browser, BrowserContext, Page

from chassis.trust import Access
from tests.browser.guard import Guard
from tests.served import Served

Theme = Literal["light", "dark"]
WIDE = (1440, 900)
PHONE = (390, 844)
# Longer than the services answer, shorter than pytest waits.
PATIENCE_MS = 20_000


@dataclass
class Visits:
    """Opens pages, each in a browser context of its own."""

    browser: Browser
    served: Served
    guard: Guard
    _contexts: list[BrowserContext] = field(default_factory=list)

    async def page(
        self,
        *,
        theme: Theme = "light",
        size: tuple[int, int] = WIDE,
        scripts: bool = True,
        timezone: str = "Europe/Berlin",
    ) -> Page:
        """An empty page of a browser without cookies. `size` is in pixels."""
        width, height = size
        context = await self.browser.new_context(
            base_url=self.served.gateway_url,
            viewport={"width": width, "height": height},
            is_mobile=size == PHONE,
            has_touch=size == PHONE,
            color_scheme=theme,
            reduced_motion="reduce",
            java_script_enabled=scripts,
            locale="en-GB",
            timezone_id=timezone,
        )
        context.set_default_timeout(PATIENCE_MS)
        self.guard.watch(context)
        self._contexts.append(context)
        return await context.new_page()

    async def signed_in(
        self,
        path: str = "/console",
        *,
        role: Access = Access.ADMIN,
        fleets: tuple[str, ...] | None = None,
        theme: Theme = "light",
        size: tuple[int, int] = WIDE,
        scripts: bool = True,
        timezone: str = "Europe/Berlin",
    ) -> Page:
        """A page of the console with a session of a new token."""
        page = await self.page(theme=theme, size=size, scripts=scripts, timezone=timezone)
        await self.begin_session(page, await self.served.token(role, fleets))
        await page.goto(path)
        return page

    async def begin_session(self, page: Page, token: str) -> None:
        """Gives the page's browser a session, as the form of the sign-in does."""
        entered = await page.request.post(
            "/console/sign-in",
            form={"token": token},
            headers={"Sec-Fetch-Site": "same-origin"},
            max_redirects=0,
        )
        assert entered.status == 303, await entered.text()

    def end_sessions(self) -> None:
        """Lets the time of all sessions run out."""
        self.served.database.execute(
            "UPDATE console_sessions SET last_used_at = last_used_at - interval '1 day'"
        )

    async def close(self) -> None:
        """Closes all pages."""
        for context in self._contexts:
            await context.close()
