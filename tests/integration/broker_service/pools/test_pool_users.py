"""What refers to a pool is counted, keeps the pool from being deleted, and can be moved."""

from typing import Any

import pytest

import registry_service.administration.pool_users.store as store
from tests.integration.broker_service.pools.test_pools import made
from tests.stack import Stack

DEVICES = 7


async def used(stack: Stack, pool_id: int) -> None:
    """Makes a key, a fleet, a region and devices that name the pool."""
    for n in range(DEVICES):
        assert (await stack.register(f"device-{n}")).status_code == 201
    await stack.create_key()
    await stack.create_fleet("named")
    for statement in (
        "UPDATE devices SET pool_id = %s",
        "UPDATE fleets SET pool_id = %s, mqtt_broker_id = NULL WHERE id = 'named'",
        "UPDATE provisioning_keys SET default_pool_id = %s WHERE devices_provisioned = 0",
    ):
        stack.database.execute(statement, pool_id)
    region = {"id": "north", "pool_id": pool_id}
    assert (await stack.admin("POST", "/regions", json=region)).status_code == 201


USED = {"devices": DEVICES, "fleets": 1, "keys": 1, "regions": 1}


@pytest.mark.parametrize("to", ["pool", "broker"])
async def test_a_move_takes_all_users_and_then_the_pool_can_be_deleted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.setattr(store, "CHUNK", 3)
    pool = await made(stack)
    path = f"/pools/{pool['id']}"
    await used(stack, pool["id"])
    assert (await stack.admin("GET", f"{path}/usage")).json() == USED
    refused = await stack.admin("DELETE", path)
    assert (refused.status_code, refused.json()["reason"]) == (409, "POOL_IN_USE")
    assert refused.json()["usage"] == USED
    target = stack.default_broker_id if to == "broker" else (await made(stack, "other"))["id"]
    answer = await stack.admin("POST", f"{path}/move", json={f"to_{to}_id": target})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"moved": USED, "left": dict.fromkeys(USED, 0)}
    field = "pool_id" if to == "pool" else "mqtt_broker_id"
    region = (await stack.admin("GET", "/regions/north")).json()
    assert {name: region[name] for name in ("pool_id", "mqtt_broker_id")} == {
        "pool_id": None,
        "mqtt_broker_id": None,
        field: target,
    }
    query = f"SELECT count(*) FROM devices WHERE {field} = %s"
    assert stack.database.execute(query, target) == [(DEVICES,)]
    assert (await stack.admin("DELETE", path)).status_code == 204
    lines = stack.database.execute(
        "SELECT action FROM audit_log WHERE subject = %s AND action LIKE 'pool.move%%' ORDER BY id",
        str(pool["id"]),
    )
    assert [line[0] for line in lines] == ["pool.move_users"] * 4 + ["pool.move_regions"]


async def test_a_wrong_move_is_refused_and_moves_nothing(stack: Stack) -> None:
    pool = await made(stack)
    await used(stack, pool["id"])
    idle = await stack.create_broker("idle", is_active=False)
    other = await stack.create_broker("other")
    wrong: tuple[tuple[dict[str, Any], int, str], ...] = (
        ({}, 422, "INVALID_INPUT"),
        ({"to_pool_id": 1, "to_broker_id": 1}, 422, "INVALID_INPUT"),
        ({"to_pool_id": pool["id"]}, 422, "INVALID_INPUT"),
        ({"to_pool_id": 99}, 422, "POOL_UNKNOWN"),
        ({"to_broker_id": 99}, 422, "BROKER_UNKNOWN"),
        ({"to_broker_id": idle}, 409, "BROKER_INACTIVE"),
        ({"to_broker_id": other}, 409, "BROKER_NOT_ALLOWED"),
    )
    limited = {"allowed_broker_ids": [stack.default_broker_id]}
    assert (await stack.admin("PATCH", "/fleets/named", json=limited)).status_code == 200
    for body, status, reason in wrong:
        refused = await stack.admin("POST", f"/pools/{pool['id']}/move", json=body)
        assert (refused.status_code, refused.json()["reason"]) == (status, reason), body
    assert (await stack.admin("GET", f"/pools/{pool['id']}/usage")).json() == USED
    for method, below, more in (("GET", "usage", None), ("POST", "move", {"to_broker_id": other})):
        gone = await stack.admin(method, f"/pools/99/{below}", json=more)
        assert (gone.status_code, gone.json()["reason"]) == (404, "POOL_NOT_FOUND")
