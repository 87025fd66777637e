"""One search over everything: what it finds for whom, what comes first, and what it shows of it."""

import re
from collections.abc import Mapping
from html import unescape

from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    Person,
    assert_escaped,
    everybody,
    signed_in,
    text_of,
)
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import root

HOME = "/console/search"
# What each person finds of things that are all named alike.
ALL = {
    "Devices",
    "Expected devices",
    "Brokers",
    "Fleets",
    "Rollouts",
    "Provisioning keys",
    "Certificates",
    "Jobs",
    "Service accounts",
    "Tokens",
}
FOUND_BY: Mapping[str, set[str]] = {
    "admin": ALL,
    "operator": ALL - {"Tokens"},
    "viewer": ALL - {"Tokens"},
    "demo": {"Devices", "Expected devices", "Brokers", "Fleets", "Rollouts", "Provisioning keys"},
    # A fleet that is not restricted may use any broker.
    "elsewhere": {"Brokers"},
}


async def furnished(stack: Stack, name: str) -> dict[str, str]:
    """One of each kind that this name finds; the paths of their pages by the kinds' headings."""

    async def make(method: str, path: str, **body: object) -> dict[str, object]:
        answer = await stack.admin(method, path, json=body)
        assert answer.is_success, answer.text
        found: dict[str, object] = answer.json() if answer.content else {}
        return found

    broker = await make("POST", "/brokers", name=name, host="h.example", port=1883, protocol="mqtt")
    await make("PATCH", "/fleets/demo", name=name)
    await make("PUT", "/fleets/demo/rollout", broker_id=broker["id"], percent=12.5)
    key = await make("POST", "/provisioning-keys", fleet_id="demo", description=name)
    certificate = await make("POST", "/certificates", kind="ca", pem=root())
    await make("PATCH", f"/certificates/{certificate['id']}", name=name)
    job = await make("POST", "/jobs", kind="assign", mqtt_broker_id=None)
    stack.database.execute("UPDATE jobs SET actor = %s WHERE id = %s", name, job["id"])
    account = await make("POST", "/service-accounts", username="acc", description=name)
    token = await make("POST", "/tokens", name=name, role="viewer")
    assert (await stack.register("a-device", deviceName=name)).is_success
    return {
        "Devices": "/console/devices/a-device",
        "Brokers": f"/console/brokers/{broker['id']}",
        "Fleets": "/console/fleets/demo",
        "Rollouts": "/console/fleets/demo#rollout-title",
        "Provisioning keys": f"/console/provisioning-keys/{key['id']}",
        "Certificates": f"/console/certificates/{certificate['id']}",
        "Jobs": f"/console/jobs/{job['id']}",
        "Service accounts": f"/console/service-accounts/{account['id']}",
        "Tokens": f"/console/tokens/{token['id']}",
    }


def groups(page: str) -> dict[str, list[str]]:
    """The groups of a page in their order, with the addresses of their hits."""
    found = {}
    for section in re.findall(r'<section class="card found".*?</section>', page, re.DOTALL):
        heading = re.search(r"<h2[^>]*>(?:<svg.*?</svg>)?(.*?)</h2>", section, re.DOTALL)
        assert heading
        hits = re.findall(r'<a class="name" href="([^"]*)"', section)
        found[heading[1]] = [unescape(hit) for hit in hits]
    return found


async def found_by(person: Person, search: str, **query: str) -> dict[str, list[str]]:
    answer = await person.see(HOME, q=search, **query)
    assert answer.status_code == 200, answer.text
    return groups(answer.text)


async def test_people_find_what_they_may_read(stack: Stack) -> None:
    paths = await furnished(stack, HOSTILE)
    for uuid in ("a-device-2", "x-1", "x-2", "y-1"):
        expected = {"uuid": uuid, "fleet_id": "demo"}
        assert (await stack.admin("POST", "/expected-devices", json=expected)).is_success
    paths["Expected devices"] = "/console/expected-devices?uuid_prefix=a-device-2"
    async with everybody(stack) as people:
        for name, headings in FOUND_BY.items():
            by_name = await found_by(people[name], HOSTILE)
            by_uuid = await found_by(people[name], "a-device")
            found = {**by_uuid, **by_name}
            assert found.keys() == headings, name
            for heading, hits in found.items():
                assert paths[heading] in hits, (name, heading)
                if heading != "Expected devices":
                    assert (await people[name].see(hits[0].partition("#")[0])).status_code == 200
            for kind in ("devices", "brokers", "fleets", "tokens", "jobs", "certificates"):
                answer = await people[name].see(HOME, q=HOSTILE, kind=kind)
                is_refused = name in ("demo", "elsewhere") and kind in ("jobs", "certificates")
                is_refused |= name != "admin" and kind == "tokens"
                assert answer.status_code == (403 if is_refused else 200), (name, kind)
        page = (await people["admin"].see(HOME, q=HOSTILE)).text
        assert_escaped(page)
        # The device, the broker, the fleet, the key, the certificate and the token.
        assert page.count("Exact match") == 6
        # A script asks for the part that changes.
        answer = await people["admin"].client.get(
            HOME, params={"q": HOSTILE}, headers={"HX-Request": "true"}
        )
        assert groups(answer.text) == groups(page)
        assert "<html" not in answer.text
        await pages_are_found(people)
        await an_empty_search_teaches(people)
        await lists_take_the_filters(people)


async def test_the_exact_match_comes_first(stack: Stack) -> None:
    for number in range(12):
        await stack.create_broker(f"cave {number}")
        await stack.register(f"cave-{number:04}")
    exact = await stack.create_broker("Cave")
    async with signed_in(stack, "admin", stack.admin_token) as admin:
        found = await found_by(admin, "cave")
        assert list(found) == ["Brokers", "Devices"]
        assert found["Brokers"][0] == f"/console/brokers/{exact}"
        assert [len(hits) for hits in found.values()] == [6, 6]
        page = (await admin.see(HOME, q="cave")).text
        assert page.count("Exact match") == 1
        assert "/console/devices?search=cave" in page
        [link] = re.findall(r'href="(/console/search\?q=cave&amp;kind=brokers)"', page)
        assert len(groups((await admin.see(unescape(link))).text)["Brokers"]) == 13
        assert list(await found_by(admin, "cave-0007")) == ["Devices"]
        assert (await admin.see(HOME, q="cave-0007")).text.count("Exact match") == 1
        # Numbers, with or without their noun.
        for text in (f"{exact}", f"broker {exact}", f" Broker  #{exact} "):
            assert (await found_by(admin, text))["Brokers"][0] == f"/console/brokers/{exact}", text
        assert await found_by(admin, "no such thing") == {}
        assert "Nothing matches “no such thing”." in (await admin.see(HOME, q="no such thing")).text

        await pages_of_one_kind(stack, admin)
        await odd_searches(admin)


async def pages_of_one_kind(stack: Stack, admin: Person) -> None:
    stack.database.execute(
        "INSERT INTO mqtt_broker_config (name, host, port)"
        " SELECT 'other ' || n, 'h', 1883 FROM generate_series(1, 60) n"
    )
    page = (await admin.see(HOME, q="other", kind="brokers")).text
    [link] = re.findall(r'href="(/console/search\?[^"]*cursor=[^"]*)"', page)
    second = (await admin.see(unescape(link))).text
    hits = groups(page)["Brokers"] + groups(second)["Brokers"]
    assert (len(groups(page)["Brokers"]), len(hits), len(set(hits))) == (50, 60, 60)


async def pages_are_found(people: Mapping[str, Person]) -> None:
    for search, name, paths in (
        ("rollouts", "viewer", {"/console/fleets?has_rollout=true"}),
        ("new broker", "operator", {"/console/brokers/new"}),
        ("new broker", "viewer", set()),
        ("AUDIT", "admin", {"/console/audit-log"}),
        ("audit", "operator", set()),
        ("audit", "demo", set()),
        ("bulk", "viewer", {"/console/jobs"}),
        ("your token", "elsewhere", {"/console/tokens/self"}),
    ):
        found = await found_by(people[name], search)
        assert set(found.get("Pages", ())) == paths, (search, name)
        for path in paths:
            assert (await people[name].see(path)).status_code == 200


async def an_empty_search_teaches(people: Mapping[str, Person]) -> None:
    for name, person in people.items():
        said = text_of((await person.see(HOME, q="  ")).text)
        assert "What you can search" in said
        assert "the beginning of the uuid" in said
        assert ("the first characters that the list shows" in said) == (name == "admin")
        assert "/api/v1/brokers" in said


async def lists_take_the_filters(people: Mapping[str, Person]) -> None:
    for name in ("admin", "demo"):
        page = (await people[name].see("/console/expected-devices", uuid_prefix="x-")).text
        assert ("x-1" in page, "x-2" in page, "y-1" in page) == (True, True, False)
        page = (await people[name].see("/console/fleets", has_rollout="true")).text
        assert 'href="/console/fleets/demo"' in page
        assert 'href="/console/fleets/elsewhere"' not in page
        page = (await people[name].see("/console/fleets", has_rollout="false")).text
        assert 'href="/console/fleets/demo"' not in page
    page = (await people["elsewhere"].see("/console/expected-devices", uuid_prefix="x-")).text
    assert "x-1" not in page


async def odd_searches(admin: Person) -> None:
    for text in (*ODD, "\\", "%_", "[", "a" * 255):
        for kind in ("", "devices", text):
            answer = await admin.see(HOME, q=text[:300], kind=kind[:70])
            assert answer.status_code < 500, (text[:50], kind[:50])
    for cursor in ("x", "IjEi", "MQ=="):
        answer = await admin.see(HOME, q="a", kind="brokers", cursor=cursor)
        assert answer.status_code == 422
    assert (await admin.see(HOME, q="a", kind="secrets")).status_code == 404


async def test_devices_are_found_without_the_broker_service(stack: Stack) -> None:
    await stack.register("cave-1")
    async with signed_in(stack, "admin", stack.admin_token) as admin:
        await stack.stop_broker_service()
        page = (await admin.see(HOME, q="cave-1")).text
        assert groups(page)["Devices"] == ["/console/devices/cave-1"]
        assert groups(page)["Brokers"] == groups(page)["Certificates"] == []
        assert page.count("does not answer now") == 2
        answer = await admin.see(HOME, q="cave-1", kind="brokers")
        assert answer.status_code == 503
