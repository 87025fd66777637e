"""All that uses a broker is moved to another one, while devices register."""

import asyncio
from typing import Any

import httpx2
import pytest

import registry_service.administration.broker_users.servicer as servicer
import registry_service.administration.broker_users.store as store
from tests.stack import Stack

PINNED = "SELECT count(*) FROM devices WHERE mqtt_broker_id = %s"


async def moved(stack: Stack, source: int, target: int, **also: Any) -> httpx2.Response:
    return await stack.admin(
        "POST", f"/brokers/{source}/move", json={"to_broker_id": target, **also}
    )


def pin_many(stack: Stack, source: int, count: int) -> None:
    """Makes devices that are pinned to `source`, like the registered one."""
    stack.database.execute(
        "INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_broker_id,"
        " mqtt_username, mqtt_password_hash, credential_salt, credential_key_id, api_key_hash,"
        " provisioned_by_key_id)"
        " SELECT 'many-' || n, device_name, device_type, fleet_id, %s, 'many-' || n,"
        " mqtt_password_hash, credential_salt, credential_key_id, api_key_hash,"
        " provisioned_by_key_id FROM devices, generate_series(1, %s) AS n WHERE uuid = 'first'",
        *(source, count),
    )


async def test_a_move_takes_all_users_and_then_the_broker_can_be_deleted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNK", 100)
    old, new = await stack.create_broker("old"), await stack.create_broker("new", port=2222)
    await stack.register("first")
    await stack.create_fleet("ruled", mqtt_broker_id=old)
    # With this salt, "first" is not among the first tenth.
    rollout = {"broker_id": old, "percent": 10, "salt": "salt"}
    assert (await stack.admin("PUT", "/fleets/demo/rollout", json=rollout)).status_code == 201
    key = await stack.create_key(default_broker_id=old)
    pin_many(stack, old, 450)
    stack.database.execute(
        "INSERT INTO expected_devices (uuid, fleet_id, mqtt_broker_id)"
        " SELECT 'expected-' || n, 'demo', %s FROM generate_series(1, 250) AS n",
        old,
    )
    before = (await stack.connection("first")).json()["source"]

    registering = [stack.register(f"new-{n}", key=key) for n in range(30)]
    answer, *registered = await asyncio.gather(moved(stack, old, new), *registering)
    assert {each.status_code for each in registered} == {201}
    assert answer.status_code == 200, answer.text
    counts = answer.json()["moved"]
    few = [counts[which] for which in ("fleets", "rollouts", "keys", "allowances")]
    assert few == [1, 1, 1, 0]
    assert counts["devices"] >= 450
    assert counts["expected_devices"] == 250
    # Registrations that had begun with the old broker have ended; the next move takes their
    # devices.
    rest = await moved(stack, old, new)
    nothing = dict.fromkeys(counts, 0)
    assert rest.json()["left"] == nothing
    assert stack.database.execute(PINNED, new) == [(480,)]
    assert (await moved(stack, old, new)).json() == {"moved": nothing, "left": nothing}
    assert (await stack.admin("DELETE", f"/brokers/{old}")).status_code == 204
    assert (await stack.connection("new-1")).json()["brokerConfig"]["port"] == 2222
    assert (await stack.register("expected-7")).json()["mqtt"]["brokerConfig"]["port"] == 2222
    assert (await stack.connection("first")).json()["source"] == before == "default"

    lines = stack.database.execute(
        "SELECT actor, after FROM audit_log WHERE action = 'broker.move_users' AND subject = %s",
        str(old),
    )
    assert {actor for actor, _ in lines} == {"tests"}
    assert all(after["to_broker_id"] == new for _, after in lines)
    # Devices that registered after the keys had moved used the new broker from the beginning.
    noted = sum(after.get("devices", 0) for _, after in lines)
    assert noted == counts["devices"] + rest.json()["moved"]["devices"]
    keys = stack.database.execute(
        "SELECT id FROM provisioning_keys WHERE default_broker_id = %s", new
    )
    assert [after["keys"] for _, after in lines if "keys" in after] == [
        [str(key_id) for (key_id,) in keys]
    ]
    assert [after["fleets"] for _, after in lines if "fleets" in after] == [["ruled"]]


async def test_a_move_without_enough_time_says_what_is_left(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNK", 10)
    monkeypatch.setattr(servicer, "RESERVE_S", 3600.0)
    old, new = await stack.create_broker("old"), await stack.create_broker("new")
    await stack.register("first")
    pin_many(stack, old, 25)
    left = []
    for _ in range(3):
        answer = (await moved(stack, old, new)).json()
        left.append((answer["moved"]["devices"], answer["left"]["devices"]))
    assert left == [(10, 15), (10, 5), (5, 0)]


async def test_a_move_needs_another_active_broker(stack: Stack) -> None:
    old, idle = await stack.create_broker("old"), await stack.create_broker("idle", is_active=False)
    for source, target, expected in (
        (old, old, (422, "INVALID_INPUT", "to_broker_id")),
        (old, 9999, (422, "BROKER_UNKNOWN", "to_broker_id")),
        (old, idle, (409, "BROKER_INACTIVE", "to_broker_id")),
        (9999, old, (404, "BROKER_NOT_FOUND", None)),
        (old, 0, (422, "INVALID_INPUT", "to_broker_id")),
    ):
        refused = await moved(stack, source, target)
        problem = refused.json()
        assert (refused.status_code, problem["reason"], problem.get("field")) == expected


async def test_a_restricted_fleet_keeps_a_broker_that_it_may_use(stack: Stack) -> None:
    old, new = await stack.create_broker("old"), await stack.create_broker("new")
    fleet = {"id": "limited", "name": "l", "mqtt_broker_id": old, "allowed_broker_ids": [old]}
    assert (await stack.admin("POST", "/fleets", json=fleet)).status_code == 201
    # This fleet only has a rollout to the broker; it is protected too.
    fleet = {"id": "going", "name": "g", "allowed_broker_ids": [old]}
    assert (await stack.admin("POST", "/fleets", json=fleet)).status_code == 201
    rollout = {"broker_id": old, "percent": 10}
    assert (await stack.admin("PUT", "/fleets/going/rollout", json=rollout)).status_code == 201
    refused = await moved(stack, old, new)
    assert (refused.status_code, refused.json()["reason"], refused.json()["usage"]) == (
        *(409, "BROKER_NOT_ALLOWED"),
        {"fleets": 2},
    )
    answer = await moved(stack, old, new, move_allowances=True)
    assert answer.json()["moved"] == {
        "devices": 0,
        "fleets": 1,
        "keys": 0,
        "allowances": 2,
        "expected_devices": 0,
        "rollouts": 1,
        **dict.fromkeys(("regions", "pools", "backups"), 0),
    }
    lines = "SELECT after FROM audit_log WHERE action = 'broker.move_users' AND refusal = ''"
    assert stack.database.execute(lines) == [
        (
            {
                "to_broker_id": new,
                "fleets": ["limited"],
                "rollouts": ["going"],
                "allowances": ["going", "limited"],
            },
        )
    ]
    listed = (await stack.admin("GET", "/fleets")).json()["items"]
    assert [
        (item["mqtt_broker_id"], item["allowed_broker_ids"])
        for item in listed
        if item["id"] == "limited"
    ] == [(new, [new])]
    key = await stack.create_key(fleet_id="limited")
    assert (await stack.register("limited-1", key=key)).json()["mqtt"]["source"] == "fleet"
