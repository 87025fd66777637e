"""An attacker registers the uuids of another fleet's devices before these do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.integration.registry_service.administration.test_fleet_access import refusal
from tests.stack import Stack


async def fleet(stack: Stack, fleet_id: str, **fields: Any) -> httpx2.Response:
    return await stack.admin("POST", "/fleets", json={"id": fleet_id, "name": fleet_id, **fields})


@pytest.fixture
async def reserved(stack: Stack) -> Stack:
    """Two customers: `theirs` has uuids with the prefix b-, `mine` with a-; `demo` has
    any other.
    """
    for fleet_id, prefix in (("theirs", "b-"), ("mine", "a-")):
        made = await fleet(stack, fleet_id, uuid_prefix=prefix)
        assert made.status_code == 201, made.text
        assert made.json()["uuid_prefix"] == prefix
    return stack


async def restricted(stack: Stack, *fleet_ids: str, **fields: Any) -> str:
    made = await stack.admin(
        "POST",
        "/tokens",
        json={"name": "t", "role": "operator", "fleet_ids": list(fleet_ids), **fields},
    )
    assert made.status_code == 201, made.text
    return str(made.json()["token"])


async def by(stack: Stack, token: str, method: str, path: str, **options: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return await stack.http.request(method, f"/api/v1{path}", headers=headers, **options)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("fleet_id", ["mine", "demo"])
async def test_a_stolen_provisioning_key_does_not_take_them(
    reserved: Stack, fleet_id: str, is_first: bool
) -> None:
    key = await reserved.create_key(fleet_id=fleet_id)
    if not is_first:
        # The registry first guesses that a device with a known key is new.
        for n in range(3):
            assert (await reserved.register(f"a-{n}", key=key)).status_code in (201, 403)
    reason = "UUID_NOT_ALLOWED" if fleet_id == "mine" else "UUID_RESERVED"
    for uuid in ("b-1", "b-", "b-x_y"):
        assert refusal(await reserved.register(uuid, key=key)) == (403, reason)
    others = "UUID_NOT_ALLOWED" if fleet_id == "mine" else ""
    for uuid in ("b", "B-1", "c-b-1"):
        answer = await reserved.register(uuid, key=key)
        assert refusal(answer) == (403, others) if others else answer.status_code == 201
    own = await reserved.register("b-1", key=await reserved.create_key(fleet_id="theirs"))
    assert (own.status_code, own.json()["fleetId"]) == (201, "theirs")


async def test_a_restricted_token_does_not_take_them(reserved: Stack) -> None:
    token = await restricted(reserved, "mine")
    wanted = [{"uuid": uuid, "fleet_id": "mine"} for uuid in ("b-1", "c-1", "a-1")]
    one = await by(reserved, token, "POST", "/expected-devices", json=wanted[0])
    assert refusal(one) == (403, "UUID_NOT_ALLOWED")
    many = (await by(reserved, token, "POST", "/expected-devices/batch", json=wanted)).json()
    assert (many["created"], [item["index"] for item in many["refused"]]) == (1, [0, 1])
    assert {item["reason"] for item in many["refused"]} == {"UUID_NOT_ALLOWED"}
    # It cannot remove the prefix either.
    for change in ({"uuid_prefix": "b-"}, {"uuid_prefix": None}):
        refused = await by(reserved, token, "PATCH", "/fleets/mine", json=change)
        assert refusal(refused) == (403, "FORBIDDEN")
    assert reserved.database.execute("SELECT uuid FROM expected_devices") == [("a-1",)]


async def test_an_import_does_not_take_them(reserved: Stack) -> None:
    rows = "uuid,fleet_id\nb-1,demo\nb-2,mine\nb-3,theirs\nd-1,demo\na-1,mine\n"
    answer = await reserved.http.post(
        "/api/v1/devices/import",
        content=rows,
        headers={
            "Authorization": f"Bearer {reserved.admin_token}",
            "Content-Type": "text/csv",
        },
    )
    assert answer.status_code == 200, answer.text
    made = reserved.database.execute("SELECT uuid FROM devices ORDER BY uuid")
    assert made == [("a-1",), ("b-3",), ("d-1",)]
    assert "UUID_RESERVED" in answer.text
    assert "UUID_NOT_ALLOWED" in answer.text


async def test_an_expected_device_of_another_fleet_does_not_take_them(reserved: Stack) -> None:
    for fleet_id, reason in (("demo", "UUID_RESERVED"), ("mine", "UUID_NOT_ALLOWED")):
        body = {"uuid": "b-1", "fleet_id": fleet_id}
        refused = await reserved.admin("POST", "/expected-devices", json=body)
        assert refusal(refused) == (403, reason)


async def test_another_fleet_does_not_take_the_prefix_or_a_part_of_it(reserved: Stack) -> None:
    for n, prefix in enumerate(("b-", "b", "b-1", "a-x")):
        assert refusal(await fleet(reserved, f"f{n}", uuid_prefix=prefix)) == (
            409,
            "UUID_PREFIX_TAKEN",
        )
        refused = await reserved.admin("PATCH", "/fleets/demo", json={"uuid_prefix": prefix})
        assert refusal(refused) == (409, "UUID_PREFIX_TAKEN")
    answers = await asyncio.gather(
        *(fleet(reserved, f"g{n}", uuid_prefix=("x-", "x-1")[n % 2]) for n in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    # A fleet's own prefix may become longer or shorter.
    for prefix in ("b-1", "b", "b-"):
        changed = await reserved.admin("PATCH", "/fleets/theirs", json={"uuid_prefix": prefix})
        assert changed.json()["uuid_prefix"] == prefix
    for wrong in ("", ".", "a b", "x" * 65, "a\n"):
        refused = await reserved.admin("PATCH", "/fleets/demo", json={"uuid_prefix": wrong})
        assert (refused.status_code, refused.json()["field"]) == (422, "uuid_prefix")


async def test_existing_devices_stay_and_are_reported(stack: Stack) -> None:
    for uuid in ("old-1", "old-2", "n-1"):
        await stack.register(uuid)
    changed = await stack.admin("PATCH", "/fleets/demo", json={"uuid_prefix": "n-"})
    assert changed.json()["devices_outside_prefix"] == 2
    assert (await stack.admin("GET", "/fleets/demo")).json()["devices_outside_prefix"] == 2
    assert (await stack.register("old-1")).status_code == 200
    assert (await stack.connection("old-2")).status_code == 200
    assert refusal(await stack.register("old-3")) == (403, "UUID_NOT_ALLOWED")
    await stack.admin("PATCH", "/devices/old-2", json={"reprovisioning_allowed": True})
    assert (await stack.register("old-2", deviceApiKey="another-key")).status_code == 200
    cleared = await stack.admin("PATCH", "/fleets/demo", json={"uuid_prefix": None})
    assert (cleared.json()["uuid_prefix"], cleared.json()["devices_outside_prefix"]) == (None, 0)
    assert (await stack.register("old-3")).status_code == 201


async def test_the_prefix_of_a_uuid_is_found_among_many(stack: Stack) -> None:
    prefixes = ["a", "b-1", "b-10x", "b-2", "b-2_", "b0", "zz", "Z"]
    taken: list[tuple[str, str]] = []
    for n, prefix in enumerate(prefixes):
        made = await fleet(stack, f"f{n}", uuid_prefix=prefix)
        is_free = not any(a.startswith(prefix) or prefix.startswith(a) for _, a in taken)
        assert made.status_code == (201 if is_free else 409)
        if is_free:
            taken.append((f"f{n}", prefix))
    uuids = ["a", "b", "b-", "b-1", "b-10x", "b-2z", "b-3", "b00", "c", "zy", "zz9", "Z", "0", "b_"]
    found = stack.database.execute(
        "SELECT uuid, reserved_for(uuid) FROM unnest(%s::text[]) AS uuid", uuids
    )
    for uuid, fleet_id in found:
        expected = next((f for f, prefix in taken if uuid.startswith(prefix)), None)
        assert fleet_id == expected, uuid


async def test_a_token_names_no_more_devices_than_it_may(stack: Stack) -> None:
    token = await restricted(stack, "demo", max_devices=10)

    async def name(uuids: list[str]) -> int:
        rows = [{"uuid": uuid, "fleet_id": "demo"} for uuid in uuids]
        answer = (await by(stack, token, "POST", "/expected-devices/batch", json=rows)).json()
        assert {item["reason"] for item in answer["refused"]} <= {"TOKEN_USED_UP"}
        return int(answer["created"])

    asked: list[Callable[[], Awaitable[int]]] = [
        lambda n=n: name([f"d-{n}-{k}" for k in range(3)])  # type: ignore[misc]
        for n in range(8)
    ]
    created = await asyncio.gather(*(ask() for ask in asked))
    assert sum(created) == 10
    assert stack.database.execute("SELECT count(*) FROM expected_devices") == [(10,)]
    one = await by(
        stack, token, "POST", "/expected-devices", json={"uuid": "x", "fleet_id": "demo"}
    )
    assert refusal(one) == (403, "TOKEN_USED_UP")
    # Deleting devices does not restore the quota.
    [(uuid,), *_] = stack.database.execute("SELECT uuid FROM expected_devices")
    assert (await by(stack, token, "DELETE", f"/expected-devices/{uuid}")).status_code == 204
    assert await name(["another"]) == 0
    tokens = (await stack.admin("GET", "/tokens")).json()["items"]
    [mine] = [item for item in tokens if item["max_devices"] is not None]
    assert (mine["max_devices"], mine["devices_made"]) == (10, 10)
    # A token without max_devices has no quota.
    rows = [{"uuid": f"admin-{n}", "fleet_id": "demo"} for n in range(20)]
    answer = await stack.admin("POST", "/expected-devices/batch", json=rows)
    assert answer.json()["created"] == 20
    refused = await stack.admin(
        "POST", "/tokens", json={"name": "t", "role": "operator", "max_devices": 3}
    )
    assert (refused.status_code, refused.json()["field"]) == (422, "max_devices")
