"""Links between pages of the console."""

import re
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urljoin, urlsplit

START = "/console"


def links_in(html: str, base: str) -> list[str]:
    """The addresses of pages of the console that `html` links to, each once. `base` is its own."""
    parser = _Links(base)
    parser.feed(html)
    return list(dict.fromkeys(parser.found))


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
