"""People at the console, one for each kind of token."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import httpx2

from chassis.trust import Access
from tests.served import client_of
from tests.stack import Stack

# Text that breaks out of an attribute or an element that does not escape it.
HOSTILE = "<script>alert(1)</script>\"'&x="
# What a field of a form may contain, however odd it is. No answer to it is a 500.
ODD = [
    HOSTILE,
    "9" * 5_000,
    "-99999999999999999999",
    "\x00",
    "\U0001f600\u202e\ufeff",
    "%",
    "../../etc",
    "x" * 20_000,
    "1e400",
    "NaN",
]


# Browsers say so of the forms of a page.
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
FORM_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


@dataclass
class Person:
    """A person who is signed in at the console."""

    name: str
    client: httpx2.AsyncClient
    _form_token: str = field(default="", init=False)

    async def see(self, path: str, **query: str) -> Any:
        """Requests a page."""
        answer = await self.client.get(path, params=query or None)
        assert answer.status_code < 500 or answer.status_code == 503, (path, query, answer.text)
        return answer

    async def send(self, path: str, /, **fields: Any) -> Any:
        """Sends a form with the token of the session. A list is a field with several values."""
        if not self._form_token:
            found = FORM_TOKEN.search((await self.see("/console")).text)
            assert found
            self._form_token = found[1]
        sent = {"form_token": self._form_token, **fields}
        answer = await self.client.post(path, data=sent)
        assert answer.status_code < 500, (path, fields, answer.text)
        return answer

    async def get(self, path: str, status: int = 200) -> str:
        """The page, as HTML, which is answered with this status."""
        answer = await self.see(path)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:2000])
        return str(answer.text)

    async def post(self, path: str, status: int = 303, **fields: Any) -> httpx2.Response:
        """The answer to a form, which has this status."""
        answer: httpx2.Response = await self.send(path, **fields)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:2000])
        return answer


async def entered(client: httpx2.AsyncClient, token: str, name: str = "") -> Person:
    """Signs in with a token, instead of the client's session before."""
    answer = await client.post("/console/sign-in", data={"token": token})
    assert answer.status_code == 303, answer.text
    return Person(name, client)


@contextlib.asynccontextmanager
async def signed_in(stack: Stack, name: str, token: str) -> AsyncIterator[Person]:
    """The owner of a token, with a session and a client of their own."""
    async with client_of(stack.gateway_url) as client:
        client.headers.update(SAME_ORIGIN)
        yield await entered(client, token, name)


@contextlib.asynccontextmanager
async def everybody(stack: Stack) -> AsyncIterator[Mapping[str, Person]]:
    """A person of each role, and an operator of the fleet `demo` and one of `elsewhere`."""
    await stack.create_fleet("elsewhere")
    kinds: list[tuple[str, Access, tuple[str, ...] | None]] = [
        ("viewer", Access.VIEWER, None),
        ("operator", Access.OPERATOR, None),
        ("demo", Access.OPERATOR, ("demo",)),
        ("elsewhere", Access.OPERATOR, ("elsewhere",)),
    ]
    async with contextlib.AsyncExitStack() as exits:
        people = {}
        for name, role, fleets in kinds:
            token = await stack.token(role, fleets, name)
            people[name] = await exits.enter_async_context(signed_in(stack, name, token))
        people["admin"] = await exits.enter_async_context(
            signed_in(stack, "admin", stack.admin_token)
        )
        yield people


def fields_of(page: str, action: str) -> dict[str, list[str]]:
    """The hidden fields of the first form with this action: the values and the revision that the
    page showed.
    """
    form = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>', page, re.DOTALL)
    assert form, action
    page = form[1]
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", page):
        name = re.search(r'\bname="([^"]*)"', tag)
        value = re.search(r'\bvalue="([^"]*)"', tag)
        if name and (name[1].startswith("was.") or name[1] == "revision"):
            found.setdefault(name[1], []).append(unescape(value[1] if value else ""))
    return found


async def acted(person: Person, page: str, action: str, **fields: Any) -> Any:
    """Opens a page, and sends the form of it that has this action."""
    return await person.send(action, **fields_of(await person.get(page), action), **fields)


def untouched(fields: Mapping[str, list[str]]) -> dict[str, Any]:
    """What a form sends if no field is changed, from its `fields_of`."""
    return {
        name.removeprefix("was."): values
        for name, values in fields.items()
        if name.startswith("was.")
    }


def assert_escaped(page: str) -> None:
    """The hostile text is on the page, and is only text there."""
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "\"'&x=" not in page


def text_of(page: str) -> str:
    """The words of a page, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())
