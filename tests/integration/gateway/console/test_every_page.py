"""Every page of the console, as every kind of person: shown or refused, as its policy states."""

from collections import defaultdict
from collections.abc import Iterator

from litestar.handlers import HTTPRouteHandler

import gateway.app
from chassis.trust import Access, WithinFleets, access_of
from gateway.examples import PARAMETERS
from tests.integration.gateway.console.people import everybody
from tests.integration.gateway.test_document import furnish
from tests.stack import Stack

ROLES = {
    "viewer": Access.VIEWER,
    "operator": Access.OPERATOR,
    "elsewhere": Access.OPERATOR,
    "admin": Access.ADMIN,
}
# For parameters without an example.
MADE_UP = "nothing"
# A name of the fleet `demo` and of what belongs to it.
OF_DEMO = "Of demo alone"
# Parameters of paths that name something of the fleet `demo`.
OF_A_FLEET = ("{fleet_id}", "{key_id}", "{uuid}")


def pages() -> Iterator[tuple[str, str, Access | WithinFleets]]:
    """The method, the path and the policy of each page for people who are signed in."""
    for route in gateway.app.served().routes:
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler) or not route.path.startswith("/console"):
                continue
            policy = handler.opt.get("access", Access.OPEN)
            if policy is Access.OPEN:
                continue
            for method in handler.http_methods & {"GET", "POST"}:
                yield method, route.path_format, policy


async def name_all(stack: Stack) -> None:
    """Makes things of the fleet `demo` with its name, and changes that pages show."""
    key, uuid = PARAMETERS["key_id"], PARAMETERS["uuid"]
    expected = {"uuid": "expected", "fleet_id": "demo", "device_name": OF_DEMO}
    for method, path, body in (
        ("PATCH", "/fleets/demo", {"name": OF_DEMO}),
        ("PATCH", f"/provisioning-keys/{key}", {"description": OF_DEMO, "max_devices": 1}),
        ("PATCH", f"/devices/{uuid}", {"device_name": OF_DEMO, "region": OF_DEMO}),
        ("POST", "/expected-devices", expected),
    ):
        answer = await stack.admin(method, path, json=body)
        assert answer.is_success, answer.text


async def test_a_page_is_shown_to_those_who_may_see_it_and_to_no_others(stack: Stack) -> None:
    await furnish(stack)
    await name_all(stack)
    shown = refused = of_demo = 0
    async with everybody(stack) as people:
        for method, path, policy in sorted(pages(), key=lambda page: page[:2]):
            filled = path.format_map(defaultdict(lambda: MADE_UP, PARAMETERS))
            for name, role in ROLES.items():
                is_restricted = name == "elsewhere"
                may = role >= access_of(policy) and (
                    not is_restricted or isinstance(policy, WithinFleets)
                )
                person, what = people[name], (name, method, filled)
                if not may:
                    answer = await (person.see(filled) if method == "GET" else person.send(filled))
                    is_hidden = MADE_UP in filled and answer.status_code == 404
                    assert is_hidden or answer.status_code == 403, what
                    refused += 1
                elif method == "GET":
                    answer = await person.see(filled)
                    assert answer.status_code < 400 or answer.status_code == 404, what
                    if is_restricted and any(name in path for name in OF_A_FLEET):
                        assert answer.status_code == 404, what
                    shown += answer.status_code == 200
                    assert not (is_restricted and OF_DEMO in answer.text), what
                    of_demo += OF_DEMO in answer.text
    assert shown > 40
    assert refused > 40
    assert of_demo > 20
