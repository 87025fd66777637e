"""No form of the console changes what the person has not seen.

The walk sends every form, of every page, that does what a JSON route with `If-Match` does. So it
covers new pages without naming them here.
"""

import re
from collections import defaultdict
from html.parser import HTMLParser
from typing import Any

import psycopg
from litestar.handlers import HTTPRouteHandler

import gateway.app
from gateway.examples import PARAMETERS, UUID
from tests.integration.gateway.console.people import everybody
from tests.integration.gateway.console.test_every_page import MADE_UP, pages
from tests.integration.gateway.test_document import furnish
from tests.stack import Stack
from tests.stored import Stored

# The confirmation of an act that undoes another one holds what that one has set, and compares it.
COMPARED_OTHERWISE = "/console/undo/"
ACTS = ("default", "deactivate", "delete")
# The broker that is not the default, which has more acts.
MANAGED = 2
# What is typed into the forms: changes, and names that confirm a deletion.
TYPED = {"description": "typed", "name": "Managed", "typed": "demo", "uuid": UUID}


class Forms(HTMLParser):
    """The forms of a page that send something: the action, and the fields as they are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self._is_open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._is_open = given.get("method") == "post"
            if self._is_open:
                self.found.append((given["action"], {}))
        elif self._is_open and tag in ("input", "button") and "name" in given:
            is_box = given.get("type") in ("checkbox", "radio")
            if not is_box or "checked" in given:
                self.found[-1][1][given["name"]] = given.get("value", "on")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._is_open = False


def conditional() -> list[re.Pattern[str]]:
    """The paths of the console's handlers that act as JSON routes with `If-Match` do."""
    served = [
        (route.path_format, handler)
        for route in gateway.app.served().routes
        for handler in getattr(route, "route_handlers", ())
        if isinstance(handler, HTTPRouteHandler) and "action" in handler.opt
    ]
    actions = {
        handler.opt["action"]
        for _, handler in served
        if "if_revision" in (handler.dependencies or ())
    }
    # Such as /console/brokers/new, which is not the path of a broker.
    others = "|".join(re.escape(path) for path, _ in served if "{" not in path)
    return [
        re.compile(f"(?!(?:{others})$)" + re.sub(r"\{[^}]*\}", "[^/]+", path))
        for path, handler in served
        if path.startswith("/console/") and handler.opt["action"] in actions
    ]


async def test_every_form_is_refused_to_a_person_who_saw_another_version(stack: Stack) -> None:
    await furnish(stack)
    rollout = {"broker_id": stack.default_broker_id, "percent": 1}
    await stack.admin("PUT", "/fleets/demo/rollout", json=rollout)
    paths = conditional()
    assert len(paths) >= 15
    lost: defaultdict[str, int] = defaultdict(int)
    async with everybody(stack) as people:
        forms: list[tuple[str, dict[str, Any]]] = []
        for method, path, _ in pages():
            for act in ACTS if "{act}" in path else ACTS[:1]:
                known = {**PARAMETERS, "broker_id": MANAGED, "act": act}
                if method == "GET" and "{" in path:
                    filled = path.format_map(defaultdict(lambda: MADE_UP, known))
                    forms += Forms((await people["admin"].see(filled)).text).found
        with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
            stored = Stored(connection)
            before = stored.now()
            for action, fields in forms:
                if not any(path.fullmatch(action.partition("?")[0]) for path in paths):
                    continue
                if action.startswith(COMPARED_OTHERWISE):
                    continue
                assert int(fields.get("revision", 0)) > 0, (action, fields)
                for stale in (str(int(fields["revision"]) + 1), ""):
                    sent = {**fields, **TYPED, "revision": stale}
                    answer = await people["admin"].send(action, **sent)
                    assert answer.status_code in (412, 422), (action, answer.text)
                    lost[action] += answer.status_code == 412
            assert stored.now() == before
    assert len(lost) >= 16
    assert all(lost.values()), lost
