"""Which pages a signed-in person reaches by links."""

from collections import Counter
from dataclasses import dataclass

from playwright.async_api import APIRequestContext

from bench.links import START, kind_of, links_in

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
            links = links_in(await answer.text(), path)
            new = [link for link in links if link not in seen]
            seen.update(new)
            waiting += [(link, path) for link in new]
    return found
