"""Which pages a signed-in person reaches by links."""

import re
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urljoin, urlsplit

from playwright.async_api import APIRequestContext

START = "/console"
# The search is reached by a form: without a text, with one that finds something, and with another.
SEARCHES = ("/console/search", "/console/search?q=ha", "/console/search?q=no+such+thing")
# Pages of one kind that are looked at: more show the same template with other values.
OF_A_KIND = 2
# Tabs of a page, fleets and devices are named alike; this bounds the pages of a folder. The pages
# of the menu are all looked at, without values of their filters.
OF_A_FOLDER = 12
MENU = ("", "console")


@dataclass(frozen=True)
class Found:
    """A page, the page that links to it, and how the gateway answered."""

    path: str
    linked_from: str
    status: int
    media_type: str


class _Links(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a" and (href := values.get("href")) and "download" not in values:
            url = urlsplit(urljoin(self.base, href))
            if not url.netloc and (url.path == START or url.path.startswith(f"{START}/")):
                self.found.append(url._replace(fragment="").geturl())


def kind_of(path: str) -> tuple[str, ...]:
    """Alike for pages that differ in the id of what they show, or in values of their filters."""
    url = urlsplit(path)
    parts = ["*" if re.search(r"\d", part) else part for part in url.path.split("/")]
    return (*parts, "?", *sorted({name for name, _ in parse_qsl(url.query, True)}))


async def reachable(requests: APIRequestContext) -> list[Found]:
    """The pages that links lead to, from the first page and the search on. No link is followed
    twice.
    """
    waiting = [(start, "") for start in (START, *SEARCHES)]
    seen = {START, *SEARCHES}
    kinds: Counter[tuple[str, ...]] = Counter()
    folders: Counter[tuple[str, ...]] = Counter()
    found = []
    while waiting:
        path, linked_from = waiting.pop(0)
        kind = kind_of(path)
        folder = kind[: kind.index("?") - 1]
        is_of_the_menu = folder == MENU and kind[-1] == "?"
        if kinds[kind] >= OF_A_KIND or (folders[folder] >= OF_A_FOLDER and not is_of_the_menu):
            continue
        kinds[kind] += 1
        folders[folder] += 1
        answer = await requests.get(path, max_redirects=0)
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        found.append(Found(path, linked_from, answer.status, media_type))
        if media_type == "text/html":
            links = _Links(path)
            links.feed(await answer.text())
            new = [link for link in dict.fromkeys(links.found) if link not in seen]
            seen.update(new)
            waiting += [(link, path) for link in new]
    return found
