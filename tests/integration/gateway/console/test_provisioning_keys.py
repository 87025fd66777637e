"""Provisioning keys at the console: use, a new one shown once, limits, and how to end one."""

import json
import re
from typing import Any

import pytest
import segno

from gateway.console.qr_code import installer_code
from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    Person,
    assert_escaped,
    everybody,
    fields_of,
    text_of,
    untouched,
)
from tests.stack import Stack

HOME = "/console/provisioning-keys"
FIELDS = (
    "fleet_id",
    "description",
    "max_devices",
    "expires_at",
    "default_broker_id",
    "default_pool_id",
    "uuid_prefix",
    "only_expected",
    "allowed_device_types",
    "source_networks",
    "allowed_uuids",
)


async def made(person: Person, **fields: Any) -> tuple[str, str]:
    """The key and its id."""
    page = await person.send(HOME, **{"fleet_id": "demo", **fields})
    assert page.status_code == 200, page.text
    key = re.search(r">(mpk_[\w-]+)</output>", page.text)
    assert key
    found = re.search(rf'href="{HOME}/([0-9a-f-]{{36}})"', page.text)
    assert found
    return key[1], found[1]


async def stored(stack: Stack, key_id: str) -> Any:
    return (await stack.admin("GET", f"/provisioning-keys/{key_id}")).json()


async def test_a_key_is_shown_once_and_registers_devices_up_to_its_limit(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        page = await operator.send(
            HOME,
            fleet_id="demo",
            description=HOSTILE,
            max_devices="1",
            expires_at="2099-12-31T23:59",
            allowed_device_types="raspberry-pi-4\r\n\r\n pump ",
            source_networks="127.0.0.0/8\n::1/128",
        )
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        assert_escaped(page.text)
        [key] = set(re.findall(r"mpk_[\w-]{20,}", page.text))
        assert f"{stack.gateway_url}/api/v1/device/register" in page.text
        assert page.text.count("<svg viewBox=") == 1
        # The code is drawn: its text is not in the page a second time.
        assert page.text.count(key) == 2

        assert (await stack.register("first", key=key)).status_code == 201
        assert (await stack.register("second", key=key)).json()["reason"] == (
            "PROVISIONING_KEY_USED_UP"
        )
        for person in people.values():
            listed = await person.see(HOME)
            assert listed.status_code == 200
            assert key not in listed.text
            assert ("1 of 1" in listed.text) == (person.name != "elsewhere")
            assert ("Used up" in listed.text) == (person.name != "elsewhere")
        [key_id] = {
            one["id"]
            for one in (await stack.admin("GET", "/provisioning-keys")).json()["items"]
            if one["description"] == HOSTILE
        }
        found = await stored(stack, key_id)
        assert found["allowed_device_types"] == ["raspberry-pi-4", "pump"]
        assert found["expires_at"] == "2099-12-31T23:59:00Z"
        one = await people["viewer"].see(f"{HOME}/{key_id}")
        assert_escaped(one.text)
        assert key not in one.text


async def test_only_what_a_person_changed_is_changed(stack: Stack) -> None:
    async with everybody(stack) as people:
        key, key_id = await made(people["demo"], max_devices="5", uuid_prefix="a")
        path = f"{HOME}/{key_id}"
        person = people["demo"]
        shown = fields_of(await person.get(path), path)
        # Another person changes the key while the form is open.
        await stack.admin("PATCH", f"/provisioning-keys/{key_id}", json={"uuid_prefix": "b"})
        lost = await person.send(path, **shown, **{**untouched(shown), "max_devices": "7"})
        assert lost.status_code == 412
        assert "Uuids begin with a → to b" in text_of(lost.text)
        assert 'value="7"' in lost.text
        assert (await stored(stack, key_id))["max_devices"] == 5
        late = await person.send(f"{path}/revoke", **shown, devices="deactivate")
        assert late.status_code == 412
        assert "Uuids begin with a → to b" in text_of(late.text)
        assert (await stored(stack, key_id))["is_active"]
        # A device that registers with the key meanwhile is no such change.
        shown = fields_of(lost.text, path)
        assert (await stack.register("b1", key=key)).status_code == 201
        sent = await person.send(path, **shown, **{**untouched(shown), "max_devices": "7"})
        assert sent.status_code == 303, sent.text
        found = await stored(stack, key_id)
        assert (found["max_devices"], found["uuid_prefix"]) == (7, "b")
        assert "Saved" in (await person.see(sent.headers["location"])).text
        shown = fields_of(await person.get(path), path)
        typed = untouched(shown)
        # Nothing was changed, so nothing is written.
        before = await stored(stack, key_id)
        assert (await person.send(path, **shown, **typed)).status_code == 303
        assert (await stored(stack, key_id))["updated_at"] == before["updated_at"]
        # A refusal keeps what was typed, and names the field.
        refused = await person.send(path, **shown, **{**typed, "max_devices": "many"})
        assert refused.status_code == 422
        assert 'value="many"' in refused.text
        assert re.search(r'name="max_devices"[^>]*aria-invalid="true"', refused.text)
        # Emptied fields are cleared.
        cleared = {**typed, "max_devices": "", "uuid_prefix": ""}
        assert (await person.send(path, **shown, **cleared)).status_code == 303
        found = await stored(stack, key_id)
        assert (found["max_devices"], found["uuid_prefix"]) == (None, None)


@pytest.mark.parametrize(("devices", "is_active"), [("keep", True), ("deactivate", False)])
async def test_a_key_is_revoked_with_or_without_its_devices(
    stack: Stack, devices: str, is_active: bool
) -> None:
    async with everybody(stack) as people:
        key, key_id = await made(people["operator"])
        assert (await stack.register("a", key=key)).status_code == 201
        asked = await people["operator"].see(f"{HOME}/{key_id}/revoke")
        assert "made 1 device of the fleet demo" in asked.text
        act = f"{HOME}/{key_id}/revoke"
        done = await people["operator"].send(act, **fields_of(asked.text, act), devices=devices)
        assert done.status_code == (303 if is_active else 200)
        assert is_active or "1 device was deactivated now" in done.text
        assert not (await stored(stack, key_id))["is_active"]
        assert (await stack.admin("GET", "/devices/a")).json()["is_active"] is is_active
        page = await people["operator"].see(f"{HOME}/{key_id}")
        assert "Revoked" in page.text
        assert f'action="{HOME}' not in page.text


async def test_who_may_not_change_keys_is_refused_and_sees_no_button(stack: Stack) -> None:
    async with everybody(stack) as people:
        _, key_id = await made(people["operator"])
        before = await stored(stack, key_id)
        changes = [
            (HOME, {"fleet_id": "demo"}),
            (f"{HOME}/{key_id}", {"description": "mine"}),
            (f"{HOME}/{key_id}/revoke", {"devices": "deactivate"}),
        ]
        for name, status in (("viewer", 403), ("elsewhere", 404)):
            person = people[name]
            for path, fields in changes:
                refused = await person.send(path, **fields)
                assert refused.status_code in (status, 422), (name, path, refused.text)
            assert "New key" not in (await person.see(HOME)).text or name != "viewer"
            one = await person.see(f"{HOME}/{key_id}")
            assert one.status_code == (200 if name == "viewer" else 404)
            assert "Revoke" not in one.text
        for path in (f"{HOME}/new", f"{HOME}/{key_id}/revoke"):
            assert (await people["viewer"].see(path)).status_code == 403
        assert await stored(stack, key_id) == before
        [count] = stack.database.execute(
            "SELECT count(*) FROM provisioning_keys WHERE fleet_id = 'demo'"
        )
        assert count == (2,)


async def test_odd_input_is_refused_by_a_page(stack: Stack) -> None:
    async with everybody(stack) as people:
        operator = people["operator"]
        _, key_id = await made(operator)
        for text in ODD:
            for name in FIELDS:
                sent = {"fleet_id": "demo", name: text}
                answer = await operator.send(HOME, **sent)
                assert answer.status_code in (200, 422), (name, text[:40], answer.text)
            path = f"{HOME}/{key_id}"
            was = {f"was.{name}": text for name in (*FIELDS, "is_active")}
            for act, fields in ((path, {}), (f"{path}/revoke", {"devices": "keep"})):
                lost = await operator.send(act, revision=text, **was, **fields)
                assert lost.status_code in (412, 422), (act, text[:40], lost.text)
            seen = fields_of(await operator.get(path), path)
            await operator.send(path, **seen, **dict.fromkeys(FIELDS, text))
            seen = fields_of(await operator.get(f"{path}/revoke"), f"{path}/revoke")
            await operator.send(f"{path}/revoke", **seen, devices=text)
            for query in ("cursor", "fleet_id", "only"):
                assert (await operator.see(HOME, **{query: text[:500]})).status_code < 500
        for path in (f"{HOME}/nothing", f"{HOME}/nothing/revoke", f"{HOME}/{'0' * 36}"):
            assert (await operator.see(path)).status_code in (404, 422)
        assert (await stored(stack, key_id))["is_active"]


def test_the_installers_code_holds_the_address_and_the_key() -> None:
    text = json.dumps(
        {"url": "https://m.example.com/api/v1/device/register", "provisioningKey": "mpk_a"},
        separators=(",", ":"),
    )
    expected = segno.make_qr(text, error="m").svg_inline(
        omitsize=True, svgclass="qr", lineclass=None, dark="#000", light="#fff"
    )
    assert str(installer_code("https://m.example.com", "mpk_a")) == expected
    assert "style" not in expected
