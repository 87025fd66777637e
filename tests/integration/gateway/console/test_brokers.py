"""Brokers at the console: each page for each kind of person, each act, and odd input."""

import re
from html import unescape
from itertools import product
from typing import Any

import psycopg
from mooring.broker.v1 import brokers_pb2

from gateway.console.brokers.fields import FIELDS, NUMBERS, REPLACED, TICKS
from gateway.console.brokers.shell import TABS
from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    Person,
    assert_escaped,
    everybody,
    signed_in,
)
from tests.stack import Stack
from tests.stored import Stored

HOME = "/console/brokers"


def form_fields(page: str) -> dict[str, str]:
    """The fields of the form `settings`, as a browser would send them."""
    found = re.search(r'<form id="settings".*?</form>', page, flags=re.DOTALL)
    assert found
    form = found[0]
    fields: dict[str, str] = {}
    for tag in re.findall(r"<input[^>]*>", form):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        if attributes.get("type") != "checkbox" or re.search(r"\schecked\b", tag):
            fields[attributes["name"]] = unescape(attributes.get("value", ""))
    for name, options in re.findall(r'<select[^>]*name="(\w+)"[^>]*>(.*?)</select>', form, re.S):
        chosen = re.search(r'<option value="([^"]*)" selected', options)
        fields[name] = unescape(chosen[1]) if chosen else ""
    for name, text in re.findall(r'<textarea[^>]*name="(\w+)"[^>]*>(.*?)</textarea>', form, re.S):
        fields[name] = unescape(text)
    fields.pop("form_token")
    return fields


async def fill_in(person: Person, path: str, fields: dict[str, str]) -> Any:
    """Sends a form of which a field may be called `path`."""
    token = re.search(r'name="form_token" value="(\w+)"', (await person.see(HOME)).text)
    assert token
    answer = await person.client.post(path, data={"form_token": token[1], **fields})
    assert answer.status_code < 500, (path, fields, answer.text)
    return answer


async def settings_of(person: Person, broker_id: int) -> dict[str, str]:
    page = await person.see(f"{HOME}/{broker_id}")
    assert page.status_code == 200
    return form_fields(page.text)


async def stored(stack: Stack, broker_id: int) -> dict[str, Any]:
    found: dict[str, Any] = (await stack.admin("GET", f"/brokers/{broker_id}")).json()
    return found


async def test_each_page_is_for_those_who_may_use_its_route(stack: Stack) -> None:
    broker = await stack.create_broker("Berlin", labels=brokers_pb2.Labels(values={"a": "b"}))
    await stack.admin("POST", f"/brokers/{broker}/secrets")
    root = f"{HOME}/{broker}"
    reading = [f"{root}{path}" for _, path, _ in TABS[1:]] + [f"{root}/history/1"]
    writing = [f"{HOME}/new", f"{root}/move", f"{root}/move?to={stack.default_broker_id}"]
    writing += [f"{root}/confirm/{act}" for act in ("default", "deactivate", "activate", "delete")]
    posts = ["", "/default", "/active", "/delete", "/move", "/access", "/history/1"]
    async with everybody(stack) as people:
        for name, person in people.items():
            is_restricted = name in ("demo", "elsewhere")
            may_change = name in ("operator", "admin")
            for path in (HOME, root, f"{HOME}?name=ber&active=true&protocol=mqtt&label=a%3Db"):
                page = await person.see(path)
                assert page.status_code == 200, (name, path)
                assert "Berlin" in page.text
                assert ("New broker" in page.text) == (may_change and path != root)
                for act in ("Deactivate", "Delete…", "Make default", "savebar"):
                    assert (act in page.text) == (may_change and path == root), (name, act)
            for path in reading:
                answer = await person.see(path)
                assert answer.status_code == (403 if is_restricted else 200), (name, path)
                for act in ("Make a secret", "Delete…", "Move everything", "Roll back</button>"):
                    assert may_change or act not in answer.text, (name, path, act)
            for path in writing:
                answer = await person.see(path)
                assert answer.status_code == (200 if may_change else 403), (name, path)
            if not may_change:
                with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
                    rows = Stored(connection)
                    before = rows.now()
                    for path in posts:
                        refused = await person.send(f"{root}{path}", name="Berlin", revision="1")
                        assert refused.status_code == 403, (name, path)
                    assert (await person.send(f"{HOME}/new", name="New")).status_code == 403
                    changed = {key for key, value in rows.now().items() if value != before[key]}
                    assert changed <= {"console_sessions"}


async def test_a_broker_from_creation_to_restoration(stack: Stack) -> None:
    async with signed_in(stack, "admin", stack.admin_token) as admin:
        fields = form_fields((await admin.see(f"{HOME}/new")).text)
        fields |= {"name": "Berlin", "host": "mqtt.example.com", "labels": "site=berlin\r\ntier=a"}
        tried = await fill_in(admin, f"{HOME}/new?dry_run=true", fields)
        assert tried.status_code == 200
        assert "This broker can be created" in tried.text
        assert [row["name"] for row in await listed(stack)] == ["Local Broker"]
        made = await fill_in(admin, f"{HOME}/new", fields)
        assert made.status_code == 303
        broker = (await listed(stack))[1]
        assert broker["labels"] == {"site": "berlin", "tier": "a"}
        assert (broker["protocol"], broker["keep_alive"]) == ("mqtts", 60)
        root = f"{HOME}/{broker['id']}"
        assert made.headers["location"].startswith(root)

        fields = await settings_of(admin, broker["id"])
        unchanged = await fill_in(admin, root, fields)
        assert unchanged.status_code == 303
        assert (await stored(stack, broker["id"]))["revision"] == 1
        fields |= {"keep_alive": "45", "username": "mooring", "password": "to be kept secret"}
        tried = await fill_in(admin, f"{root}?dry_run=true", fields)
        assert tried.status_code == 200
        assert "was 60" in tried.text
        assert "3 changes" in tried.text
        assert "0 devices get the new settings when they next ask" in tried.text
        assert "to be kept secret" not in tried.text
        assert (await stored(stack, broker["id"]))["revision"] == 1
        assert (await fill_in(admin, root, fields)).status_code == 303
        now = await stored(stack, broker["id"])
        assert (now["keep_alive"], now["username"], now["has_password"]) == (45, "mooring", True)
        history = (await admin.see(f"{root}/history")).text
        assert "<del>60</del>" in history
        assert "to be kept secret" not in history

        fields = await settings_of(admin, broker["id"])
        removed = fields | {"remove_password": "true", "username": ""}
        assert (await fill_in(admin, root, removed)).status_code == 303
        assert not (await stored(stack, broker["id"]))["has_password"]

        compared = await admin.see(f"{root}/history/1")
        assert "<ins>60</ins>" in compared.text
        stale = await admin.send(f"{root}/history/1", revision="1")
        assert stale.status_code == 412
        assert (await admin.send(f"{root}/history/1", revision="3")).status_code == 303
        assert (await stored(stack, broker["id"]))["keep_alive"] == 60

        wrong = await admin.send(f"{root}/delete", name="Berlin 2", revision="4")
        assert wrong.status_code == 422
        assert "must be the name of the broker" in wrong.text
        stale = await admin.send(f"{root}/delete", name="Berlin", revision="3")
        assert stale.status_code == 412
        gone = await admin.send(f"{root}/delete", name="Berlin", revision="4")
        assert gone.status_code == 303
        assert "/history" in (await admin.see(gone.headers["location"])).text
        assert (await admin.see(root)).status_code == 404
        assert "Deleted" in (await admin.see(f"{root}/history")).text
        assert "Restore" in (await admin.see(f"{root}/history/4")).text
        assert (await admin.send(f"{root}/history/4", revision="deleted")).status_code == 303
        assert (await stored(stack, broker["id"]))["name"] == "Berlin"


async def listed(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await stack.admin("GET", "/brokers")).json()["items"]
    return found


async def test_a_lost_race_shows_both_versions_and_keeps_what_was_typed(stack: Stack) -> None:
    broker = await stack.create_broker("Berlin", region="eu", keep_alive=60)
    root = f"{HOME}/{broker}"
    async with signed_in(stack, "admin", stack.admin_token) as admin:
        mine = await settings_of(admin, broker) | {"keep_alive": "45", "description": "mine"}
        theirs = {"keep_alive": 30, "region": "us"}
        await stack.admin("PATCH", f"/brokers/{broker}", json=theirs)
        live = await fill_in(admin, f"{root}?dry_run=true", mine)
        assert live.status_code == 200
        lost = await fill_in(admin, root, mine)
        assert lost.status_code == 412
        for page in (live.text, lost.text):
            assert "<del>60</del>" in page
            assert "<ins>30</ins>" in page
            assert "yours: 45" in page
            merged = form_fields(page)
            assert merged["revision"] == "2"
            # What they changed and I did not is theirs.
            assert (merged["keep_alive"], merged["region"]) == ("45", "us")
            assert merged["description"] == "mine"
        assert (await stored(stack, broker))["keep_alive"] == 30
        assert (await fill_in(admin, root, form_fields(lost.text))).status_code == 303
        now = await stored(stack, broker)
        assert (now["keep_alive"], now["region"], now["description"]) == (45, "us", "mine")


async def test_acts_say_in_numbers_what_they_do(stack: Stack) -> None:
    berlin, boston = await stack.create_broker("Berlin"), await stack.create_broker("Boston")
    await stack.create_fleet("north", mqtt_broker_id=berlin)
    await stack.create_key(fleet_id="north", default_broker_id=berlin)
    await stack.register("one")
    await stack.register("two", key=await stack.create_key(fleet_id="north"))
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": berlin})
    root = f"{HOME}/{berlin}"
    async with signed_in(stack, "admin", stack.admin_token) as admin:
        used = await admin.see(root)
        assert "1 device uses this broker" in used.text
        assert "1 pinned, 1 by their fleet, 0 as the default" in used.text
        assert "2 devices are assigned" in (await admin.see(f"{root}/devices")).text
        asked = await admin.see(f"{root}/confirm/delete")
        for words in ("1 pinned device", "1 fleet", "1 provisioning key"):
            assert words in asked.text
        refused = await admin.send(f"{root}/delete", name="Berlin", revision="1")
        assert (refused.status_code, "BROKER_IN_USE" in refused.text) == (409, True)
        assert "2 assigned devices get" in (await admin.see(f"{root}/confirm/deactivate")).text

        shown = await admin.see(f"{root}/move", to=str(boston))
        assert "2 devices go" in shown.text
        moved = await admin.send(f"{root}/move", to_broker_id=str(boston))
        assert moved.status_code == 200
        assert "Everything was moved to Boston" in moved.text
        usage = (await stack.admin("GET", f"/brokers/{berlin}/usage")).json()
        assert not any(usage.values())
        for wrong in (str(berlin), "999", "", *ODD):
            answer = await admin.send(f"{root}/move", to_broker_id=wrong)
            assert answer.status_code == 422, wrong

        assert "1 device that has" not in (await admin.see(f"{root}/confirm/default")).text
        assert (await admin.send(f"{root}/active", revision="1")).status_code == 303
        inactive = await admin.send(f"{root}/default", revision="2")
        assert (inactive.status_code, "BROKER_INACTIVE" in inactive.text) == (409, True)
        active = {"revision": "2", "is_active": "true"}
        assert (await fill_in(admin, f"{root}/active", active)).status_code == 303
        assert (await fill_in(admin, f"{root}/active", active)).status_code == 412
        assert (await admin.send(f"{root}/default", revision="1")).status_code == 412
        assert (await admin.send(f"{root}/default", revision="3")).status_code == 303
        assert (await stored(stack, berlin))["is_default"]
        default = await admin.send(f"{root}/active", revision="4")
        assert (default.status_code, "BROKER_IS_DEFAULT" in default.text) == (409, True)
        assert "Delete…" in (await admin.see(root)).text


async def test_a_secret_is_shown_once_and_is_in_the_settings_to_paste(stack: Stack) -> None:
    root = f"{HOME}/{stack.default_broker_id}/access"
    async with signed_in(stack, "admin", stack.admin_token) as admin:
        assert "This broker has no secret" in (await admin.see(root)).text
        made = await admin.send(root)
        assert made.headers["cache-control"] == "no-store"
        [secret] = set(re.findall(r"mbs_[\w-]{20,}", made.text))
        assert f"/{secret}/rabbitmq/user" in made.text
        assert "mbs_…" not in made.text
        assert stack.gateway_url in made.text
        listing = await admin.see(root)
        assert secret not in listing.text
        found = re.search(rf'href="{root}/([0-9a-f-]+)"', listing.text)
        assert found
        for _ in range(4):
            assert (await admin.send(root)).status_code == 200
        full = await admin.send(root)
        assert (full.status_code, "TOO_MANY_BROKER_SECRETS" in full.text) == (409, True)
        asked = await admin.see(f"{root}/{found[1]}")
        assert "4 other secrets" in asked.text
        assert (await admin.send(f"{root}/{found[1]}")).status_code == 303
        assert (await admin.send(f"{root}/{found[1]}")).status_code == 404
        assert (await admin.see(f"{root}/{found[1]}")).status_code == 404


async def test_a_wrong_field_is_named_and_changes_nothing(stack: Stack) -> None:
    broker = await stack.create_broker("Berlin")
    root = f"{HOME}/{broker}"
    async with signed_in(stack, "admin", stack.admin_token) as admin:
        fields = await settings_of(admin, broker)
        new = form_fields((await admin.see(f"{HOME}/new")).text) | {"name": "New", "host": "h"}
        with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
            rows = Stored(connection)
            before = rows.now()
            for turn, (field, text) in enumerate(product((*FIELDS, *REPLACED), ODD)):
                # The form for a new broker has the same fields: it is tried with every third text.
                forms = ((root, fields), (f"{HOME}/new", new))
                for path, filled in forms if turn % 3 == 0 else forms[:1]:
                    typed = filled | {field: text}
                    live = await fill_in(admin, f"{path}?dry_run=true", typed)
                    assert live.status_code == 200, (field, text)
                    if field in NUMBERS:
                        assert 'aria-invalid="true"' in live.text, (field, text)
            for text in (*ODD, ""):
                assert (await admin.send(root, revision=text)).status_code == 422
            after = rows.now()
            assert {key for key in after if after[key] != before[key]} <= {"console_sessions"}
        for field in fields:
            # A form that lacks a field does not change it; one without a box has unticked it.
            lacking = {name: value for name, value in fields.items() if name != field}
            answer = await fill_in(admin, f"{root}?dry_run=true", lacking)
            assert answer.status_code == (422 if field == "revision" else 200), field
            is_changed = "Nothing has changed" not in answer.text
            assert is_changed == (field in (*TICKS, "revision")), field


async def test_text_of_others_is_only_text(stack: Stack) -> None:
    broker = await stack.create_broker(
        HOSTILE,
        description=HOSTILE,
        region=HOSTILE,
        client_id_prefix=HOSTILE,
        username=HOSTILE,
        labels=brokers_pb2.Labels(values={"site": HOSTILE}),
    )
    await stack.admin("PATCH", f"/brokers/{broker}", json={"description": f"2 {HOSTILE}"})
    root = f"{HOME}/{broker}"
    paths = [HOME, root, *(f"{root}{path}" for _, path, _ in TABS), f"{root}/move"]
    paths += [f"{root}/history/1", f"{root}/confirm/delete", f"{root}/confirm/default"]
    async with everybody(stack) as people:
        for name in ("admin", "viewer"):
            for path in paths:
                page = await people[name].see(path)
                if page.status_code == 200:
                    assert_escaped(page.text)
        typed = await settings_of(people["admin"], broker)
        for field in FIELDS:
            answer = await fill_in(
                people["admin"], f"{root}?dry_run=true", typed | {field: HOSTILE}
            )
            assert_escaped(answer.text)
    for query in ODD:
        async with signed_in(stack, "admin", stack.admin_token) as admin:
            for parameter in ("name", "active", "protocol", "region", "label", "cursor", "deleted"):
                answer = await admin.see(HOME, **{parameter: query})
                assert answer.status_code in (200, 422, 431), (parameter, query)
                assert "<script>alert" not in answer.text


async def test_a_broker_that_is_not_there(stack: Stack) -> None:
    tabs = [path for _, path, _ in TABS]
    pages = (*tabs, "/move", "/confirm/delete", "/history/1", "/history/0", "/access/x")
    acts = ("", "/default", "/active", "/delete", "/move", "/access", "/history/1")
    async with signed_in(stack, "admin", stack.admin_token) as admin:
        for broker_id in ("0", "-1", "2147483648", "9" * 30, "x", "%00", "4711"):
            for path in pages:
                answer = await admin.see(f"{HOME}/{broker_id}{path}")
                assert answer.status_code == 404, path
            for path in acts:
                fields = {"revision": "1", "to_broker_id": "1", "name": "x"}
                answer = await fill_in(admin, f"{HOME}/{broker_id}{path}", fields)
                assert answer.status_code == 404, path
