"""A person at the console, without scripts: signs in, and sends forms."""

import re
from html import unescape
from typing import Any

import httpx2
from mooring.registry.v1 import tokens_pb2

from tests.stack import Stack

ROLES = {
    "viewer": tokens_pb2.ROLE_VIEWER,
    "operator": tokens_pb2.ROLE_OPERATOR,
    "admin": tokens_pb2.ROLE_ADMIN,
}
FORM_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


class Visit:
    """One signed-in session."""

    def __init__(self, browser: httpx2.AsyncClient, form_token: str) -> None:
        """`browser` has the cookie of the session."""
        self._browser = browser
        self._form_token = form_token

    async def get(self, path: str, status: int = 200) -> str:
        """The page, as HTML."""
        answer = await self._browser.get(path)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:2000])
        return answer.text

    async def post(self, path: str, status: int = 303, **fields: Any) -> httpx2.Response:
        """The answer to a form."""
        answer = await self._browser.post(path, data={"form_token": self._form_token, **fields})
        assert answer.status_code == status, (path, answer.status_code, answer.text[:2000])
        return answer


async def signed_in(browser: httpx2.AsyncClient, secret: str) -> Visit:
    """Signs in with a token, instead of the session before."""
    entered = await browser.post("/console/sign-in", data={"token": secret})
    assert entered.status_code == 303, entered.text
    found = FORM_TOKEN.search((await browser.get("/console")).text)
    assert found
    return Visit(browser, found[1])


async def token_of(stack: Stack, role: str, fleets: tuple[str, ...] = ()) -> str:
    """A new token of this role; with `fleets`, it is restricted to them."""
    request = tokens_pb2.CreateTokenRequest(name=f"a {role} {fleets}", role=ROLES[role])
    if fleets:
        request.fleets.ids.extend(fleets)
    return str((await stack.registry.tokens("CreateToken", request)).secret)


def text_of(page: str) -> str:
    """The words of a page, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())
