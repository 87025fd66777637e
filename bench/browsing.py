"""A person in the console: signs in, follows links, and takes the time of each page."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from types import MappingProxyType
from urllib.parse import urlencode

from bench.errors import CannotMeasure
from bench.links import START, kind_of, links_in
from bench.stage import Services

PATIENCE_S = 30.0
# Of pages that differ only in what they show, so many are asked for: by the number of conditions in
# their addresses. Links to more conditions are not followed, because there are too many.
OF_A_KIND: Mapping[int, int] = MappingProxyType({0: 2, 1: 2, 2: 1})


@dataclass(frozen=True)
class Answer:
    """A page, and the seconds until it was complete."""

    status: int
    is_html: bool
    text: str
    seconds: float


class Browser:
    """One connection with a session."""

    def __init__(self, port: int, connection: HTTPConnection, cookie: str) -> None:
        """Use `signed_in`."""
        self._port = port
        self._connection = connection
        self._cookie = cookie

    def get(self, path: str, **headers: str) -> Answer:
        """Asks for a page."""
        begun = time.perf_counter()
        self._connection.request("GET", path, headers={"Cookie": self._cookie, **headers})
        response = self._connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - begun
        is_html = response.headers.get_content_type() == "text/html"
        return Answer(response.status, is_html, body.decode() if is_html else "", seconds)

    @contextmanager
    def changes(self) -> Iterator[Iterator[str]]:
        """The lines of the stream of changes, which has a connection of its own."""
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)) as connection:
            headers = {"Cookie": self._cookie, "mooring-background": "true"}
            connection.request("GET", f"{START}/changes", headers=headers)
            response = connection.getresponse()
            if response.status != HTTPStatus.OK:
                raise CannotMeasure(f"the stream of changes is answered {response.status}")
            yield (line.decode().strip() for line in response)


@contextmanager
def signed_in(services: Services, token: str) -> Iterator[Browser]:
    """Begins a session for an API token. Raises `CannotMeasure`."""
    with closing(
        HTTPConnection("127.0.0.1", services.gateway_port, timeout=PATIENCE_S)
    ) as connection:
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Sec-Fetch-Site": "same-origin",
        }
        connection.request("POST", f"{START}/sign-in", urlencode({"token": token}), headers)
        response = connection.getresponse()
        response.read()
        cookie = response.headers.get("Set-Cookie", "").partition(";")[0]
        if response.status != HTTPStatus.SEE_OTHER or not cookie:
            raise CannotMeasure(f"signing in is answered {response.status}")
        yield Browser(services.gateway_port, connection, cookie)


def reachable(browser: Browser, beginnings: Sequence[str]) -> list[str]:
    """The paths of the beginnings and of pages that links lead to, some of each kind. Raises
    `CannotMeasure` if one is refused.
    """
    waiting = list(beginnings)
    seen = set(waiting)
    kinds: Counter[tuple[str, ...]] = Counter()
    found = []
    while waiting:
        path = waiting.pop(0)
        kind = kind_of(path)
        conditions = len(kind) - 1 - kind.index("?")
        if path not in beginnings and kinds[kind] >= OF_A_KIND.get(conditions, 0):
            continue
        kinds[kind] += 1
        answer = browser.get(path)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise CannotMeasure(f"{path} is answered {answer.status}")
        if answer.is_html:
            found.append(path)
            new = [link for link in links_in(answer.text, path) if link not in seen]
            seen.update(new)
            waiting += new
    return found
