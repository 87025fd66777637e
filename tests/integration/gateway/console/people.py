"""People at the console, one for each kind of token."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import httpx2
from mooring.registry.v1 import tokens_pb2

from chassis.trust import Access
from tests.events import FirstEvent
from tests.integration.chassis.test_policies import ROLES
from tests.served import NO_TLS
from tests.stack import PATIENCE_S, Stack

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

    async def send(self, path: str, **fields: Any) -> Any:
        """Sends a form with the token of the session. A list is a field with several values."""
        if not self._form_token:
            found = re.search(
                r'name="form_token" value="([0-9a-f]{64})"', (await self.see("/console")).text
            )
            assert found
            self._form_token = found[1]
        sent = {"form_token": self._form_token, **fields}
        answer = await self.client.post(path, data=sent)
        assert answer.status_code < 500, (path, fields, answer.text)
        return answer


@contextlib.asynccontextmanager
async def signed_in(stack: Stack, name: str, token: str) -> AsyncIterator[Person]:
    """The owner of a token, with a session."""
    async with httpx2.AsyncClient(
        base_url=stack.gateway_url,
        headers={"Sec-Fetch-Site": "same-origin"},
        timeout=PATIENCE_S,
        # A walk over all pages meets the stream of changes.
        transport=FirstEvent(verify=NO_TLS),
    ) as client:
        entered = await client.post("/console/sign-in", data={"token": token})
        assert entered.status_code == 303, entered.text
        yield Person(name, client)


@contextlib.asynccontextmanager
async def everybody(stack: Stack) -> AsyncIterator[Mapping[str, Person]]:
    """A person of each role, and an operator of the fleet `demo` and one of `elsewhere`."""
    await stack.create_fleet("elsewhere")
    kinds: list[tuple[str, Access, list[str]]] = [
        ("viewer", Access.VIEWER, []),
        ("operator", Access.OPERATOR, []),
        ("demo", Access.OPERATOR, ["demo"]),
        ("elsewhere", Access.OPERATOR, ["elsewhere"]),
    ]
    async with contextlib.AsyncExitStack() as exits:
        people = {}
        for name, role, fleets in kinds:
            request = tokens_pb2.CreateTokenRequest(
                name=name,
                role=ROLES[role],
                fleets=tokens_pb2.TokenFleets(ids=fleets) if fleets else None,
            )
            token = (await stack.registry.tokens("CreateToken", request)).secret
            people[name] = await exits.enter_async_context(signed_in(stack, name, token))
        people["admin"] = await exits.enter_async_context(
            signed_in(stack, "admin", stack.admin_token)
        )
        yield people


def fields_of(page: str) -> dict[str, list[str]]:
    """The hidden fields of a page with the values that it showed."""
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", page):
        name = re.search(r'\bname="([^"]*)"', tag)
        value = re.search(r'\bvalue="([^"]*)"', tag)
        if name and name[1].startswith("was."):
            found.setdefault(name[1], []).append(unescape(value[1] if value else ""))
    return found


def assert_escaped(page: str) -> None:
    """The hostile text is on the page, and is only text there."""
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "\"'&x=" not in page
