"""The first page: what needs a person, numbers, and undoing what changed."""

import re
from datetime import timedelta

import httpx2
from markupsafe import escape

from chassis.database import engine_of
from chassis.trust import Access
from registry_service.audit.sealing.check_store import Checker
from registry_service.audit.sealing.sealer import Sealer
from registry_service.audit.sealing.store import SealStore
from registry_service.credentials import KeyRing
from tests.integration.gateway.console.people import Person, entered, text_of
from tests.integration.gateway.console.test_jobs import run
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import root

HOME = "/console"
NASTY = """<script>alert("x")</script> ' & {{ 7*7 }}"""


async def test_an_empty_installation_needs_nobody(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    for secret in (
        stack.admin_token,
        await stack.token(Access.OPERATOR),
        await stack.token(Access.VIEWER),
        await stack.token(Access.VIEWER, ("demo",)),
    ):
        visit = await entered(browser, secret)
        page = await visit.get(HOME)
        assert "Nothing needs you now." in page
        assert "Registrations per minute" in page
        # Only an administrator may read the log.
        assert ("What changed" in page) == (secret == stack.admin_token)


async def test_what_needs_a_person_comes_first(stack: Stack, browser: httpx2.AsyncClient) -> None:
    made = await stack.admin("POST", "/certificates", json={"kind": "ca", "pem": root()})
    ca = made.json()["id"]
    await stack.admin("PATCH", f"/certificates/{ca}", json={"name": NASTY})
    broker = {
        "name": "Halle",
        "host": "localhost",
        "port": 8883,
        "protocol": "mqtts",
        "ca_certificate_id": ca,
        "management": "mosquitto",
        "username": "mooring",
        "password": "p",
    }
    answer = await stack.admin("POST", "/brokers", json=broker)
    assert answer.status_code == 201, answer.text
    broker_id = answer.json()["id"]
    await stack.admin("POST", f"/brokers/{broker_id}/default")
    key = await stack.create_key(max_devices=1, description=NASTY)
    await stack.register("only", key=key)
    stack.database.execute(
        "UPDATE certificates SET not_after = now() + %s WHERE id = %s",
        timedelta(days=9, hours=1),
        ca,
    )
    job = await stack.admin("POST", "/jobs", json={"kind": "assign", "mqtt_broker_id": None})
    stack.database.execute(
        "UPDATE jobs SET state = 'paused', failure = %s WHERE id = %s", NASTY, job.json()["id"]
    )

    visit = await entered(browser, stack.admin_token)
    page = await visit.get(HOME)
    assert "<script>alert" not in page
    assert str(escape(NASTY)) in page
    said = text_of(page)
    assert "ends in 9 days. 1 device of 1 broker would be cut off" in said
    assert "has 0 of 1 devices left. Fleet demo. New devices are refused." in said
    assert f"Job {job.json()['id']} stopped after 0%." in said
    assert "Halle is not in step. No process manages brokers now" in said
    assert "Nothing needs you" not in said
    assert "1 in the last hour" in said or "Active devices 1" in said
    states = (await stack.admin("GET", "/enforcement?has_problem=true")).json()["items"]
    assert [one["name"] for one in states] == ["Halle"]
    assert (await stack.admin("GET", "/enforcement?has_problem=false")).json()["items"] == []
    full = (await stack.admin("GET", "/provisioning-keys?used_percent=90")).json()["items"]
    assert [one["description"] for one in full] == [NASTY]
    counts = (await stack.admin("GET", "/device-counts?order=told&limit=1")).json()
    assert (counts["items"][0]["broker_id"], counts["devices"]) == (broker_id, 1)
    rest = await stack.admin(
        "GET", "/device-counts", params={"order": "told", "cursor": counts["next_cursor"]}
    )
    assert broker_id not in [one["broker_id"] for one in rest.json()["items"]]

    # A token that is restricted to another fleet sees no key of these fleets.
    await stack.create_fleet("other")
    restricted = await entered(browser, await stack.token(Access.VIEWER, ("other",)))
    seen = text_of(await restricted.get(HOME))
    for hidden in ("ends in", "devices left", "stopped", "in step", "Active devices"):
        assert hidden not in seen, hidden


def undo_links(page: str) -> list[str]:
    return [
        link.replace("&amp;", "&") for link in re.findall(r'href="(/console/undo/[^"]+)"', page)
    ]


async def undo(visit: Person, link: str) -> None:
    page = await visit.get(link)
    action = re.search(r'method="post" action="(/console/undo/[^"]+)"', page)
    assert action, page
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    hidden.pop("form_token")
    await visit.post(action[1], **hidden)


async def test_the_last_change_is_undone(stack: Stack, browser: httpx2.AsyncClient) -> None:
    first = stack.default_broker_id
    second = await stack.create_broker(NASTY)
    await stack.register()
    visit = await entered(browser, stack.admin_token)

    await stack.admin("PATCH", "/devices/test-device-123", json={"mqtt_broker_id": second})
    [link] = undo_links(await visit.get(HOME))
    assert str(escape(NASTY)) in await visit.get(link)
    await undo(visit, link)
    device = (await stack.admin("GET", "/devices/test-device-123")).json()
    assert device["mqtt_broker_id"] is None
    # It has changed since: the page says so, and nothing happens.
    assert "It cannot be undone here" in await visit.get(link)
    refused = await visit.post(link.partition("?")[0], 412, was=str(second), to="0")
    assert "LOST_RACE" in refused.text

    await stack.admin("POST", f"/brokers/{second}/default")
    link = next(link for link in undo_links(await visit.get(HOME)) if "/default/" in link)
    assert "1 device uses the default" in await visit.get(link)
    await undo(visit, link)
    assert (await stack.admin("GET", f"/brokers/{first}")).json()["is_default"] is True
    await visit.post(link.partition("?")[0], 412, was=str(second))

    await stack.admin("PATCH", f"/brokers/{second}", json={"keep_alive": 45})
    page = await visit.get(HOME)
    assert "keep_alive" in page
    link = next(link for link in undo_links(page) if "/broker/" in link)
    await undo(visit, link)
    assert (await stack.admin("GET", f"/brokers/{second}")).json()["keep_alive"] == 60
    await visit.post(link, 412, revision="2")

    for path, fields in (
        (f"/console/undo/broker/{second}", {}),
        (f"/console/undo/broker/{second}", {"revision": "1"}),
        (f"/console/undo/broker/{second}", {"revision": "9" * 30}),
        (f"/console/undo/default/{first}", {"was": "x"}),
        ("/console/undo/pin/test-device-123", {"was": "-1", "to": "0"}),
        ("/console/undo/pin/test-device-123", {"was": "0", "to": "2000000000"}),
    ):
        await visit.post(path, 422, **fields)
    await visit.post("/console/undo/pin/nobody", 404, was="0", to="0")
    await visit.get("/console/undo/broker/2000000000", 404)
    await visit.get("/console/undo/pin/test-device-123?was=x", 422)

    viewer = await entered(browser, await stack.token(Access.VIEWER))
    for path in (
        f"/console/undo/broker/{second}",
        f"/console/undo/default/{first}",
        "/console/undo/pin/test-device-123",
    ):
        await viewer.get(path, 403)
        await viewer.post(path, 403, was="0", to="0", revision="2")
    restricted = await entered(browser, await stack.token(Access.OPERATOR, ("demo",)))
    await restricted.get("/console/undo/pin/test-device-123")
    await restricted.get(f"/console/undo/broker/{second}", 403)


async def test_what_changed_names_brokers(stack: Stack, browser: httpx2.AsyncClient) -> None:
    await stack.register()
    second = await stack.create_broker(NASTY, host="b.example.com")
    await stack.admin("PATCH", "/devices/test-device-123", json={"mqtt_broker_id": second})
    visit = await entered(browser, stack.admin_token)
    page = await visit.get(HOME)
    assert f"broker {escape(NASTY)}</a>" in page
    assert f"<ins>{escape(NASTY)}</ins>" in page
    await stack.admin("PATCH", "/devices/test-device-123", json={"mqtt_broker_id": None})
    await stack.admin("DELETE", f"/brokers/{second}")
    # The name of a broker that is gone is not known.
    assert f"broker {second}</a>" in await visit.get(HOME)


async def test_rollouts_and_jobs_are_undone(stack: Stack, browser: httpx2.AsyncClient) -> None:
    other = await stack.create_broker("other")
    for number in range(8):
        await stack.register(f"device-{number}")
    visit = await entered(browser, stack.admin_token)

    async def link_to(part: str) -> str:
        found = re.findall(r'href="(/console/[^"]+)" aria-label="Undo', await visit.get(HOME))
        [link] = [link for link in found if part in link]
        return str(link.replace("&amp;", "&"))

    def rollout(percent: float) -> dict[str, float]:
        return {"broker_id": other, "percent": percent}

    await stack.admin("PUT", "/fleets/demo/rollout", json=rollout(25))
    assert await link_to("/rollout") == "/console/fleets/demo/rollout/stop"
    await stack.admin("PUT", "/fleets/demo/rollout", json=rollout(62.5))
    link = await link_to("/rollout")
    assert "about 5 of 8 devices; then about 2." in text_of(await visit.get(link))
    await undo(visit, link)
    fleet = (await stack.admin("GET", "/fleets/demo")).json()
    assert (fleet["rollout"]["broker_id"], fleet["rollout"]["percent"]) == (other, 25)
    # It is no longer at the percent that is to be undone.
    assert "It cannot be undone here" in await visit.get(link)
    path = link.partition("?")[0]
    refused = await visit.post(path, 412, broker_id=str(other), was="62.5", to="25")
    assert "LOST_RACE" in refused.text
    for odd in ("x", "-1", "101", "9" * 30, "1e1", "NaN", ""):
        await visit.post(path, 422, broker_id=str(other), was=odd, to="25")
        assert (await stack.admin("GET", "/fleets/demo")).json()["rollout"]["percent"] == 25
    await visit.get(f"{path}?was=101", 422)
    await visit.get("/console/undo/rollout/nowhere", 404)
    # Undoing was a change too, which goes back again. A rollout to another broker does not.
    assert "was=25.0" in await link_to("/rollout")
    await stack.admin("PUT", "/fleets/demo/rollout", json=rollout(25) | {"broker_id": 1})
    assert "/rollout" not in "".join(undo_links(await visit.get(HOME)))

    made = await stack.admin(
        "POST",
        "/jobs",
        json={
            "kind": "assign",
            "filter": {"fleet_id": "demo"},
            "mqtt_broker_id": other,
        },
    )
    assert made.status_code == 201, made.text
    job = made.json()["id"]
    start = await stack.admin("POST", f"/jobs/{job}/start")
    assert start.status_code == 200, start.text
    assert "/jobs" not in "".join(re.findall(r'href="([^"]+/undo)"', await visit.get(HOME)))
    assert "It cannot be undone now" in await visit.get(f"/console/jobs/{job}/undo")
    await run(stack)
    link = await link_to("/jobs/")
    assert "gives 8 devices their previous pin back" in await visit.get(link)
    await visit.post(link)
    await run(stack)
    pins = "SELECT DISTINCT mqtt_broker_id FROM devices"
    assert stack.database.execute(pins) == [(None,)]
    assert "/undo" not in "".join(re.findall(r'href="(/console/jobs[^"]+)"', await visit.get(HOME)))

    viewer = await entered(browser, await stack.token(Access.VIEWER))
    await viewer.get(path, 403)
    await viewer.post(path, 403, broker_id="1", was="1", to="1")
    await stack.create_fleet("elsewhere")
    elsewhere = await entered(browser, await stack.token(Access.OPERATOR, ("elsewhere",)))
    await elsewhere.get(path, 404)
    await elsewhere.post(path, 404, broker_id="1", was="1", to="1")


async def test_an_audit_log_that_does_not_verify_needs_a_person(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    visit = await entered(browser, stack.admin_token)
    log = "/console/audit-log"
    before = (await stack.admin("GET", "/audit-log/seals")).json()
    assert before == {"last_seal": None, "check": None}
    assert "Not checked yet" in await visit.get(log)
    engine = engine_of(stack.database.url("mooring_sealer"), pool_size=1)
    keys = KeyRing(1, {1: bytes(range(32))})
    sealer = Sealer(SealStore(engine), keys, "tests")
    checker = Checker(engine, keys.keys)
    try:
        await stack.create_fleet("north")
        assert await sealer.seal() > 0
        await checker.turn(0.0)
        # It is not due again.
        await checker.turn(1.0)
        sound = (await stack.admin("GET", "/audit-log/seals")).json()
        assert sound["check"]["is_sound"] is True
        assert sound["last_seal"]["head"].startswith("1:")
        assert "No change found" in await visit.get(log)
        assert "does not verify" not in await visit.get(HOME)

        [(line,)] = stack.database.execute(
            "UPDATE audit_log SET actor = 'bob' WHERE subject = 'north' RETURNING id"
        )
        await checker.check()
        bad = (await stack.admin("GET", "/audit-log/seals")).json()["check"]
        assert (bad["is_sound"], bad["findings"][0]["fault"]) == (False, "LINES_CHANGED")
        assert line in bad["findings"][0]["line_ids"]
        assert "The audit log does not verify. Lines were changed." in text_of(
            await visit.get(HOME)
        )
        assert "Does not verify" in await visit.get(log)
        assert "Lines were changed (seal 1)" in text_of(await visit.get(log))
    finally:
        await sealer.stop()
        await engine.dispose()
    stack.database.execute(
        "UPDATE audit_checks SET findings = '[]', checked_at = now() - interval '3 hours'"
    )
    assert "The audit log was not checked for 3 hours." in text_of(await visit.get(HOME))
    # Other people learn nothing of it.
    operator = await entered(browser, await stack.token(Access.OPERATOR))
    assert "audit log was not checked" not in text_of(await operator.get(HOME))
