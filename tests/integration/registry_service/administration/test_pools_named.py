"""Fleets, provisioning keys and devices name pools, beside brokers."""

from typing import Any

import httpx2
import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from mooring.registry.v1 import devices_pb2, devices_pb2_grpc, fleets_pb2, fleets_pb2_grpc

from chassis.errors import InvalidInput, NotFound
from chassis.trust import Access, Actor
from tests.pools import make_pool
from tests.stack import Stack

NO_POOL = 999


def refusal_of(answer: httpx2.Response) -> tuple[int, str, str]:
    problem = answer.json()
    return answer.status_code, problem["reason"], problem["field"]


async def key_named(stack: Stack, **fields: Any) -> httpx2.Response:
    return await stack.admin("POST", "/provisioning-keys", json={"fleet_id": "demo", **fields})


async def test_a_fleet_names_a_broker_or_a_pool(stack: Stack) -> None:
    broker, pool = stack.default_broker_id, make_pool(stack, stack.default_broker_id)
    both = {"mqtt_broker_id": broker, "pool_id": pool}
    made = await stack.admin("POST", "/fleets", json={"id": "both", **both})
    assert refusal_of(made) == (422, "INVALID_INPUT", "pool_id")
    made = await stack.admin("POST", "/fleets", json={"id": "pooled", "pool_id": pool})
    assert made.status_code == 201, made.text
    assert (made.json()["pool_id"], made.json()["mqtt_broker_id"]) == (pool, None)
    path = "/fleets/pooled"

    async def patched(**change: Any) -> httpx2.Response:
        return await stack.admin("PATCH", path, json=change)

    before = (await stack.admin("GET", path)).json()
    for change, field in (
        ({"mqtt_broker_id": broker}, "mqtt_broker_id"),
        (both, "mqtt_broker_id"),
    ):
        assert refusal_of(await patched(**change)) == (422, "INVALID_INPUT", field)
    assert refusal_of(await patched(pool_id=NO_POOL)) == (422, "POOL_UNKNOWN", "pool_id")
    for wrong in (0, -1, 2**31, "1", 1.5, True):
        answer = await patched(pool_id=wrong)
        assert (answer.status_code, answer.json()["field"]) == (422, "pool_id"), wrong
    assert (await stack.admin("GET", path)).json() == before
    replaced = (await patched(mqtt_broker_id=broker, pool_id=None)).json()
    assert (replaced["mqtt_broker_id"], replaced["pool_id"]) == (broker, None)
    assert refusal_of(await patched(pool_id=pool)) == (422, "INVALID_INPUT", "pool_id")
    back = (await patched(mqtt_broker_id=None, pool_id=pool)).json()
    assert (back["mqtt_broker_id"], back["pool_id"]) == (None, pool)
    assert back["revision"] > replaced["revision"] > before["revision"]
    log = "SELECT before->>'pool_id', after->>'pool_id' FROM audit_log WHERE subject = 'pooled'"
    assert stack.database.execute(f"{log} ORDER BY id") == [
        (None, str(pool)),
        (str(pool), None),
        (None, str(pool)),
    ]
    stale = await stack.http.patch(
        f"/api/v1{path}",
        json={"pool_id": None},
        headers={"Authorization": f"Bearer {stack.admin_token}", "If-Match": '"1"'},
    )
    assert (stale.status_code, stale.json()["reason"]) == (412, "LOST_RACE")


async def test_completing_a_rollout_replaces_the_pool(stack: Stack) -> None:
    pool = make_pool(stack, stack.default_broker_id)
    other = await stack.create_broker("other")
    changed = await stack.admin("PATCH", "/fleets/demo", json={"pool_id": pool})
    assert changed.status_code == 200, changed.text
    rollout = {"broker_id": other, "percent": 100}
    assert (await stack.admin("PUT", "/fleets/demo/rollout", json=rollout)).status_code == 201
    assert (await stack.admin("POST", "/fleets/demo/rollout/complete")).status_code == 200
    fleet = (await stack.admin("GET", "/fleets/demo")).json()
    assert (fleet["mqtt_broker_id"], fleet["pool_id"]) == (other, None)


async def test_a_key_names_a_broker_or_a_pool(stack: Stack) -> None:
    broker, pool = stack.default_broker_id, make_pool(stack, stack.default_broker_id)
    both = await key_named(stack, default_broker_id=broker, default_pool_id=pool)
    assert refusal_of(both) == (422, "INVALID_INPUT", "default_pool_id")
    unknown = await key_named(stack, default_pool_id=NO_POOL)
    assert refusal_of(unknown) == (422, "POOL_UNKNOWN", "default_pool_id")
    made = await key_named(stack, default_pool_id=pool)
    assert (made.status_code, made.json()["default_pool_id"]) == (201, pool)
    path = f"/provisioning-keys/{made.json()['id']}"

    async def patched(**change: Any) -> httpx2.Response:
        return await stack.admin("PATCH", path, json=change)

    refused = await patched(default_broker_id=broker)
    assert refusal_of(refused) == (422, "INVALID_INPUT", "default_broker_id")
    refused = await patched(default_pool_id=NO_POOL)
    assert refusal_of(refused) == (422, "POOL_UNKNOWN", "default_pool_id")
    replaced = (await patched(default_broker_id=broker, default_pool_id=None)).json()
    assert (replaced["default_broker_id"], replaced["default_pool_id"]) == (broker, None)
    refused = await patched(default_pool_id=pool)
    assert refusal_of(refused) == (422, "INVALID_INPUT", "default_pool_id")
    kept = (await patched(description="same")).json()
    assert (kept["default_broker_id"], kept["default_pool_id"]) == (broker, None)
    shown = (await stack.admin("GET", "/provisioning-keys")).json()["items"]
    assert all("default_pool_id" in key for key in shown)


async def test_a_device_has_a_pool_beside_its_pin(stack: Stack) -> None:
    broker, pool = stack.default_broker_id, make_pool(stack, stack.default_broker_id)
    await stack.register("one")
    path = "/devices/one"
    before = (await stack.admin("GET", path)).json()
    assert (before["pool_id"], before["home_broker_id"]) == (None, None)
    pooled = (await stack.admin("PUT", path, json={"pool_id": pool})).json()
    assert (pooled["pool_id"], pooled["mqtt_broker_id"]) == (pool, None)
    assert pooled["revision"] != before["revision"]
    both = (await stack.admin("PATCH", path, json={"mqtt_broker_id": broker})).json()
    assert (both["pool_id"], both["mqtt_broker_id"]) == (pool, broker)
    unknown = await stack.admin("PUT", path, json={"pool_id": NO_POOL})
    assert refusal_of(unknown) == (422, "POOL_UNKNOWN", "pool_id")
    home = await stack.admin("PUT", path, json={"home_broker_id": broker})
    assert (home.status_code, home.json()["field"]) == (422, "home_broker_id")
    stack.database.execute("UPDATE devices SET home_broker_id = %s", broker)
    homed = (await stack.admin("GET", path)).json()
    assert (homed["home_broker_id"], homed["revision"]) == (broker, both["revision"])
    stale = await stack.http.put(
        f"/api/v1{path}",
        json={"pool_id": None},
        headers={
            "Authorization": f"Bearer {stack.admin_token}",
            "If-Match": f'"{before["revision"]}"',
        },
    )
    assert (stale.status_code, stale.json()["reason"]) == (412, "LOST_RACE")
    found = (await stack.admin("GET", f"/devices?pool_id={pool}")).json()["items"]
    assert [device["uuid"] for device in found] == ["one"]
    cleared = (await stack.admin("PUT", path, json={"pool_id": None})).json()
    assert (cleared["pool_id"], cleared["mqtt_broker_id"]) == (None, broker)
    log = (
        "SELECT before, after FROM audit_log WHERE action = 'device.update' AND subject = 'one'"
        " ORDER BY id"
    )
    assert stack.database.execute(log) == [
        ({"pool_id": None}, {"pool_id": pool}),
        ({"mqtt_broker_id": None}, {"mqtt_broker_id": broker}),
        ({"pool_id": pool}, {"pool_id": None}),
    ]


async def test_a_job_takes_the_devices_of_a_pool(stack: Stack) -> None:
    pool = make_pool(stack, stack.default_broker_id)
    for uuid in ("in", "out"):
        await stack.register(uuid)
    await stack.admin("PUT", "/devices/in", json={"pool_id": pool})
    for wanted, count in (({"pool_id": pool}, 1), ({"pool_id": None}, 1), ({}, 2)):
        body = {"kind": "assign", "mqtt_broker_id": stack.default_broker_id, "filter": wanted}
        job = (await stack.admin("POST", "/jobs", json=body)).json()
        assert job["filter"] == wanted
        check = (await stack.admin("POST", f"/jobs/{job['id']}/check")).json()
        assert sum(check["outcomes"].values()) == count, wanted


async def test_a_pool_that_is_named_is_not_deleted(stack: Stack) -> None:
    pool = make_pool(stack)
    await stack.register("one")
    for path, field in (("/fleets/demo", "pool_id"), ("/devices/one", "pool_id")):
        assert (await stack.admin("PATCH", path, json={field: pool})).status_code == 200
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="is in use"):
            stack.database.execute("DELETE FROM pools WHERE id = %s", pool)
        assert (await stack.admin("PATCH", path, json={field: None})).status_code == 200
    stack.database.execute("DELETE FROM pools WHERE id = %s", pool)


async def test_a_restricted_actor_changes_only_its_own(stack: Stack) -> None:
    pool = make_pool(stack, stack.default_broker_id)
    await stack.create_fleet("theirs")
    await stack.register("one")
    actor = Actor("customer", Access.OPERATOR, fleets=frozenset({"theirs"}))
    mask = FieldMask(paths=["pool_id"])

    async def changed(fleet_id: str, pool_id: int) -> Any:
        request = fleets_pb2.UpdateFleetRequest(
            id=fleet_id, fields=fleets_pb2.FleetFields(pool_id=pool_id), update_mask=mask
        )
        stub = fleets_pb2_grpc.FleetServiceStub
        return await stack.registry.ask(stub, "UpdateFleet", request, actor=actor)

    assert (await changed("theirs", pool)).fleet.fields.pool_id == pool
    with pytest.raises(NotFound, match="no such fleet"):
        await changed("demo", pool)
    for wrong in (NO_POOL, 0, -1):
        with pytest.raises(InvalidInput) as refused:
            await changed("theirs", wrong)
        assert (refused.value.reason, refused.value.field) == ("POOL_UNKNOWN", "pool_id")
    # To those who may use some brokers only, no pool exists.
    await stack.admin("PATCH", "/fleets/theirs", json={"pool_id": None, "allowed_broker_ids": []})
    with pytest.raises(InvalidInput, match="no such pool"):
        await changed("theirs", pool)
    request = devices_pb2.UpdateDeviceRequest(
        uuid="one", fields=devices_pb2.DeviceFields(pool_id=pool), update_mask=mask
    )
    with pytest.raises(NotFound, match="no such device"):
        await stack.registry.ask(
            devices_pb2_grpc.DeviceServiceStub, "UpdateDevice", request, actor=actor
        )
