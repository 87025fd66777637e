"""What no page of the console may do in a browser: each test fails if one does."""

import re
from dataclasses import dataclass, field

from playwright.async_api import BrowserContext, ConsoleMessage, Request, Response

SERVER_ERRORS = 500
# Chromium writes this to the console for each refused request.
REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
LOST = ("Failed to load resource: net::", "htmx: htmx:error: Failed to fetch")
NO_ANSWER = 0
ABOUT_BLANK = "about:blank"


@dataclass
class Guard:
    """Collects the faults of all pages of a browser context."""

    origin: str
    faults: list[str] = field(default_factory=list)
    _expected: set[int] = field(default_factory=set)

    def expect(self, *statuses: int) -> None:
        """The test provokes answers with these statuses, or `NO_ANSWER`; Chromium's console shows
        them.
        """
        self._expected |= set(statuses)

    def watch(self, context: BrowserContext) -> None:
        """Collects from now on: errors of scripts and of the policy, which Chromium writes to the
        console, requests to another origin, and errors of the server.
        """
        context.on("console", self._said)
        context.on("weberror", lambda error: self.faults.append(f"a script failed: {error.error}"))
        context.on("request", self._asked)
        context.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        refused = REFUSED.match(message.text)
        if refused:
            is_expected = int(refused[1]) in self._expected
        else:
            is_expected = message.text.startswith(LOST) and NO_ANSWER in self._expected
        if message.type in ("error", "warning") and not is_expected:
            self.faults.append(f"the console shows: {message.text} ({message.location})")

    def _asked(self, request: Request) -> None:
        if request.url != ABOUT_BLANK and not request.url.startswith(f"{self.origin}/"):
            self.faults.append(f"a page asked another origin: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= SERVER_ERRORS and response.status not in self._expected:
            self.faults.append(f"{response.status} from {response.url}")
