"""Fleets and rollouts at the console: settings, waves with their progress, and the way back."""

from typing import Any

from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    acted,
    assert_escaped,
    everybody,
    fields_of,
    text_of,
    untouched,
)
from tests.stack import Stack

HOME = "/console/fleets"
FIELDS = (
    "id",
    "name",
    "mqtt_broker_id",
    "pool_id",
    "is_restricted",
    "allowed_broker_ids",
    "uuid_prefix",
)


async def stored(stack: Stack, fleet_id: str) -> Any:
    return (await stack.admin("GET", f"/fleets/{fleet_id}")).json()


async def test_a_fleet_is_made_changed_disabled_and_deleted(stack: Stack) -> None:
    other = await stack.create_broker(HOSTILE)
    async with everybody(stack) as people:
        operator = people["operator"]
        made = await operator.send(HOME, id="new", name="", mqtt_broker_id="")
        assert (made.status_code, made.headers["location"]) == (303, f"{HOME}/new")
        assert (await stored(stack, "new"))["name"] == "new"
        path = f"{HOME}/new"
        page = await operator.see(path)
        assert_escaped(page.text)
        typed = {
            "name": HOSTILE,
            "mqtt_broker_id": str(other),
            "is_restricted": "true",
            "allowed_broker_ids": [str(stack.default_broker_id), str(other)],
            "uuid_prefix": "",
        }
        saved = await operator.send(path, **fields_of(page.text, path), **typed)
        assert saved.status_code == 303, saved.text
        found = await stored(stack, "new")
        assert (found["name"], found["mqtt_broker_id"]) == (HOSTILE, other)
        assert found["allowed_broker_ids"] == [stack.default_broker_id, other]
        for person in (operator, people["viewer"]):
            for shown in (HOME, path):
                assert_escaped((await person.see(shown)).text)
        # A broker that the fleet is not allowed is refused, and what was typed stays.
        third = await stack.create_broker("third")
        was = fields_of((await operator.see(path)).text, path)
        refused = await operator.send(path, **was, **{**typed, "mqtt_broker_id": str(third)})
        assert refused.status_code == 409
        assert "BROKER_NOT_ALLOWED" in refused.text
        assert f'<option value="{third}" selected>' in refused.text

        disabled = await acted(operator, f"{path}/disable", f"{path}/active", is_active="false")
        assert disabled.status_code == 303
        assert not (await stored(stack, "new"))["is_active"]
        enabled = await acted(operator, path, f"{path}/active", is_active="true")
        assert enabled.status_code == 303
        assert (await stored(stack, "new"))["is_active"]

        key = await stack.create_key(fleet_id="new")
        assert (await stack.register("n-1", key=key)).status_code == 201
        refused = await acted(operator, f"{path}/delete", f"{path}/delete")
        assert refused.status_code == 409
        assert "1 devices" in refused.text
        seen = fields_of(refused.text, f"{path}/delete")
        assert (await operator.send(f"{path}/delete", **seen, typed="old")).status_code == 422
        assert (await stored(stack, "new"))["is_active"]
        gone = await operator.send(f"{path}/delete", **seen, typed="new")
        assert (gone.status_code, gone.headers["location"]) == (303, HOME)
        assert (await operator.see(path)).status_code == 404
        assert (await stack.admin("GET", "/devices/n-1")).status_code == 404


async def test_a_rollout_goes_in_waves_and_back(stack: Stack) -> None:
    old, new = await stack.create_broker("old"), await stack.create_broker("new")
    await stack.admin("PATCH", "/fleets/demo", json={"mqtt_broker_id": old})
    uuids = [f"d{number}" for number in range(8)]
    for uuid in uuids:
        assert (await stack.register(uuid)).status_code == 201
    async with everybody(stack) as people:
        # An operator of a fleet may roll out in this fleet only.
        person = people["demo"]
        path = f"{HOME}/demo/rollout"
        fleet = f"{HOME}/demo"
        begun = await acted(person, fleet, path, broker_id=str(new), percent="50", salt="spring")
        assert begun.status_code == 303, begun.text
        rollout = (await stored(stack, "demo"))["rollout"]
        assert (rollout["broker_id"], rollout["percent"]) == (new, 50)
        assert rollout["salt"] == "spring"
        page = (await person.see(f"{HOME}/demo")).text
        assert "It reaches about 4 of 8 devices; 0 got this broker" in page
        moved = 0
        for uuid in uuids:
            answer = (await stack.register(uuid)).json()
            moved += answer["mqtt"]["brokerConfig"]["port"] == 1883 and "new" in str(answer)
        counts = (await stack.admin("GET", "/fleets/demo/device-counts")).json()["told"]
        arrived = {count["mqtt_broker_id"]: count["devices"] for count in counts}.get(new, 0)
        assert 0 < arrived < 8
        page = (await person.see(f"{HOME}/demo")).text
        assert f"8 devices; {arrived} got this broker" in page
        assert f"{arrived} device" in (await person.see(f"{path}/stop")).text
        for percent, status in (("100", 303), ("12.34", 303), ("12,5 %", 303), ("101", 422)):
            answer = await acted(person, fleet, path, broker_id=str(new), percent=percent)
            assert answer.status_code == status, (percent, answer.text)
        assert (await stored(stack, "demo"))["rollout"]["percent"] == 12.5
        assert "Complete" in (await person.see(f"{path}/complete")).text
        assert (await acted(person, f"{path}/stop", f"{path}/stop")).status_code == 303
        assert (await stored(stack, "demo"))["rollout"] is None
        for act in ("stop", "complete"):
            assert (await person.see(f"{path}/{act}")).status_code == 404
            seen = fields_of(await person.get(fleet), path)
            assert (await person.send(f"{path}/{act}", **seen)).status_code == 404
        again = await acted(person, fleet, path, broker_id=str(new), percent="10")
        assert again.status_code == 303
        assert (await acted(person, f"{path}/complete", f"{path}/complete")).status_code == 303
        found = await stored(stack, "demo")
        assert (found["mqtt_broker_id"], found["rollout"]) == (new, None)
        await stack.admin("PATCH", f"/brokers/{old}", json={"is_active": False})
        refused = await acted(person, fleet, path, broker_id=str(old), percent="10")
        assert refused.status_code == 409
        assert "BROKER_INACTIVE" in refused.text


async def test_a_lost_race_shows_both_versions_of_a_fleet(stack: Stack) -> None:
    other = await stack.create_broker("other")
    theirs = {"name": "theirs", "mqtt_broker_id": other, "uuid_prefix": "n-"}
    told = "Name demo → to theirs", "Broker empty → to other"
    async with everybody(stack) as people:
        for name, sees_prefix in (("operator", True), ("demo", False)):
            person, path = people[name], f"{HOME}/demo"
            was = fields_of(await person.get(path), path)
            typed = {**untouched(was), "name": "mine"}
            await stack.admin("PATCH", "/fleets/demo", json=theirs)
            lost = await person.send(path, **was, **typed)
            assert lost.status_code == 412
            assert f"{told[0]} yours: mine" in text_of(lost.text)
            assert told[1] in text_of(lost.text)
            assert ("Uuids begin with empty → to n-" in text_of(lost.text)) is sees_prefix
            assert 'value="mine"' in lost.text
            # Saving again changes what the person changed, and keeps what the other person changed.
            was = fields_of(lost.text, path)
            saved = await person.send(path, **was, **{**untouched(was), "name": "mine"})
            assert saved.status_code == 303, saved.text
            found = await stored(stack, "demo")
            assert {each: found[each] for each in theirs} == {**theirs, "name": "mine"}
            before = {"name": "demo", "mqtt_broker_id": None, "uuid_prefix": None}
            await stack.admin("PATCH", "/fleets/demo", json=before)


async def test_no_act_on_a_fleet_is_done_by_a_person_who_saw_another_version(stack: Stack) -> None:
    broker = stack.default_broker_id
    async with everybody(stack) as people:
        operator, path = people["operator"], f"{HOME}/demo"
        await stack.admin("PUT", "/fleets/demo/rollout", json={"broker_id": broker, "percent": 1})
        acts: list[tuple[str, str, dict[str, str]]] = [
            (path, "/rollout", {"broker_id": str(broker), "percent": "50"}),
            (f"{path}/rollout/stop", "/rollout/stop", {}),
            (f"{path}/rollout/complete", "/rollout/complete", {}),
            (f"{path}/disable", "/active", {"is_active": "false"}),
            (f"{path}/delete", "/delete", {"typed": "demo"}),
        ]
        forms = [fields_of(await operator.get(page), path + act) for page, act, _ in acts]
        await stack.admin("PUT", "/fleets/demo/rollout", json={"broker_id": broker, "percent": 2})
        before = await stored(stack, "demo")
        for (_, act, fields), seen in zip(acts, forms, strict=True):
            lost = await operator.send(path + act, **seen, **fields)
            assert lost.status_code == 412, (act, lost.text)
            told = f"Rollout 1 % to broker {broker} → to 2 % to broker {broker}"
            assert told in text_of(lost.text), act
            # A form without a revision is of no version.
            assert (await operator.send(path + act, **fields)).status_code == 412
        assert await stored(stack, "demo") == before
        for page, act, fields in acts[:2]:
            done = await acted(operator, page, path + act, **fields)
            assert done.status_code == 303, (act, done.text)


async def test_who_may_not_change_fleets_is_refused_and_sees_no_button(stack: Stack) -> None:
    async with everybody(stack) as people:
        before = await stored(stack, "demo")
        changes: list[tuple[str, dict[str, str]]] = [
            (HOME, {"id": "mine"}),
            (f"{HOME}/demo", {"name": "mine"}),
            (f"{HOME}/demo/active", {"is_active": "false"}),
            (f"{HOME}/demo/delete", {"typed": "demo"}),
            (
                f"{HOME}/demo/rollout",
                {"broker_id": str(stack.default_broker_id), "percent": "1"},
            ),
            (f"{HOME}/demo/rollout/stop", {}),
            (f"{HOME}/demo/rollout/complete", {}),
        ]
        for name in ("viewer", "elsewhere"):
            for path, fields in changes:
                refused = await people[name].send(path, **fields)
                assert refused.status_code in (403, 404), (name, path, refused.text)
        for path in ("", "/delete", "/disable", "/rollout/stop"):
            assert (await people["elsewhere"].see(f"{HOME}/demo{path}")).status_code in (403, 404)
        for path in ("/-/new", "/demo/delete", "/demo/disable", "/demo/rollout/stop"):
            assert (await people["viewer"].see(f"{HOME}{path}")).status_code == 403
        viewed = (await people["viewer"].see(f"{HOME}/demo")).text
        assert f'action="{HOME}' not in viewed
        assert "Disable" not in viewed
        assert "New fleet" not in (await people["demo"].see(HOME)).text
        listed = (await people["elsewhere"].see(HOME)).text
        assert f"{HOME}/elsewhere" in listed
        assert f"{HOME}/demo" not in listed
        # A person who is restricted to the fleet changes its broker, and not its restrictions.
        own = await people["demo"].get(f"{HOME}/demo")
        assert 'name="mqtt_broker_id"' in own
        assert 'name="uuid_prefix"' not in own
        refused = await people["demo"].send(f"{HOME}/demo", uuid_prefix="mine")
        assert refused.status_code == 403
        assert await stored(stack, "demo") == before


async def test_odd_input_is_refused_by_a_page(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        for text in ODD:
            for name in FIELDS:
                sent = {"is_restricted": "true", "id": "a", "name": "a", name: text}
                answer = await operator.send(HOME, **sent)
                assert answer.status_code in (303, 409, 422), (name, text[:40], answer.text)
            was = {f"was.{name}": text for name in (*FIELDS, "is_active", "rollout")}
            await operator.send(f"{HOME}/demo", revision=text, **was)
            path = f"{HOME}/demo/rollout"
            for name in ("broker_id", "percent", "salt", "revision"):
                seen = fields_of(await operator.get(f"{HOME}/demo"), path)
                sent = {"broker_id": str(stack.default_broker_id), "percent": "1", name: text}
                answer = await operator.send(path, **{**seen, **sent})
                assert answer.status_code in (303, 412, 409, 422), (name, text[:40], answer.text)
            for act in ("active", "delete", "rollout/stop", "rollout/complete"):
                lost = await operator.send(f"{HOME}/demo/{act}", revision=text, **was)
                assert lost.status_code == 412, (act, text[:40], lost.text)
            page = await operator.get(f"{HOME}/demo")
            seen = fields_of(page, f"{HOME}/demo")
            await operator.send(f"{HOME}/demo", **seen, **dict.fromkeys(FIELDS, text))
            assert (await operator.see(HOME, cursor=text[:500])).status_code in (200, 422)
        for path in (f"{HOME}/-", f"{HOME}/%00", f"{HOME}/{'x' * 300}", f"{HOME}/nothing"):
            assert (await operator.see(path)).status_code in (404, 422)
