"""Fleets and rollouts at the console: settings, waves with their progress, and the way back."""

from typing import Any

from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    assert_escaped,
    everybody,
    fields_of,
)
from tests.stack import Stack

HOME = "/console/fleets"
FIELDS = ("id", "name", "mqtt_broker_id", "is_restricted", "allowed_broker_ids", "uuid_prefix")


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
        was = fields_of(page.text)
        # Another person disables the fleet and gives it a prefix while the form is open.
        await stack.admin("PATCH", "/fleets/new", json={"uuid_prefix": "n-"})
        saved = await operator.send(
            path,
            **was,
            name=HOSTILE,
            mqtt_broker_id=str(other),
            is_restricted="true",
            allowed_broker_ids=[str(stack.default_broker_id), str(other)],
            uuid_prefix="",
        )
        assert saved.status_code == 303, saved.text
        found = await stored(stack, "new")
        assert (found["name"], found["mqtt_broker_id"]) == (HOSTILE, other)
        assert found["allowed_broker_ids"] == [stack.default_broker_id, other]
        assert found["uuid_prefix"] == "n-"
        for person in (operator, people["viewer"]):
            for shown in (HOME, path):
                assert_escaped((await person.see(shown)).text)
        # A broker that the fleet is not allowed is refused, and what was typed stays.
        third = await stack.create_broker("third")
        was = fields_of((await operator.see(path)).text)
        typed = {name.removeprefix("was."): values for name, values in was.items()}
        refused = await operator.send(path, **was, **{**typed, "mqtt_broker_id": str(third)})
        assert refused.status_code == 409
        assert "BROKER_NOT_ALLOWED" in refused.text
        assert f'<option value="{third}" selected>' in refused.text

        assert "Disable" in (await operator.see(f"{path}/disable")).text
        assert (await operator.send(f"{path}/active", is_active="false")).status_code == 303
        assert not (await stored(stack, "new"))["is_active"]
        assert (await operator.send(f"{path}/active", is_active="true")).status_code == 303
        assert (await stored(stack, "new"))["is_active"]

        key = await stack.create_key(fleet_id="new")
        assert (await stack.register("n-1", key=key)).status_code == 201
        assert (await operator.see(f"{path}/delete")).status_code == 200
        refused = await operator.send(f"{path}/delete")
        assert refused.status_code == 409
        assert "1 devices" in refused.text
        assert (await operator.send(f"{path}/delete", typed="old")).status_code == 422
        assert (await stored(stack, "new"))["is_active"]
        gone = await operator.send(f"{path}/delete", typed="new")
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
        begun = await person.send(path, broker_id=str(new), percent="50", salt="spring")
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
            answer = await person.send(path, broker_id=str(new), percent=percent)
            assert answer.status_code == status, (percent, answer.text)
        assert (await stored(stack, "demo"))["rollout"]["percent"] == 12.5
        assert "Complete" in (await person.see(f"{path}/complete")).text
        assert (await person.send(f"{path}/stop")).status_code == 303
        assert (await stored(stack, "demo"))["rollout"] is None
        for act in ("stop", "complete"):
            assert (await person.see(f"{path}/{act}")).status_code == 404
            assert (await person.send(f"{path}/{act}")).status_code == 404
        assert (await person.send(path, broker_id=str(new), percent="10")).status_code == 303
        assert (await person.send(f"{path}/complete")).status_code == 303
        found = await stored(stack, "demo")
        assert (found["mqtt_broker_id"], found["rollout"]) == (new, None)
        await stack.admin("PATCH", f"/brokers/{old}", json={"is_active": False})
        refused = await person.send(path, broker_id=str(old), percent="10")
        assert refused.status_code == 409
        assert "BROKER_INACTIVE" in refused.text


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
        own = (await people["demo"].see(f"{HOME}/demo")).text
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
            await operator.send(f"{HOME}/demo", **dict.fromkeys(FIELDS, text))
            for name in ("broker_id", "percent", "salt"):
                sent = {"broker_id": str(stack.default_broker_id), "percent": "1", name: text}
                answer = await operator.send(f"{HOME}/demo/rollout", **sent)
                assert answer.status_code in (303, 409, 422), (name, text[:40], answer.text)
            await operator.send(f"{HOME}/demo/active", is_active=text)
            assert (await operator.see(HOME, cursor=text[:500])).status_code in (200, 422)
        for path in (f"{HOME}/-", f"{HOME}/%00", f"{HOME}/{'x' * 300}", f"{HOME}/nothing"):
            assert (await operator.see(path)).status_code in (404, 422)
