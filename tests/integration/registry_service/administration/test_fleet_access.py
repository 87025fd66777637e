"""Disabling a fleet refuses its devices; deleting it deletes all that it has."""

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from mooring.registry.v1 import devices_pb2, fleets_pb2, fleets_pb2_grpc, tokens_pb2

import registry_service.administration.fleets.removal_store
import registry_service.administration.fleets.servicer
from chassis.database import engine_of
from chassis.errors import Forbidden
from chassis.process import background
from chassis.trust import Access, Actor
from registry_service.administration.fleets.revocation_store import FleetRevocationStore
from registry_service.administration.fleets.revoking import revoking
from tests.integration.registry_service.provisioning.test_key_races import (
    made_by_storm,
    owned,
    storm,
    until,
    waiting,
)
from tests.stack import Stack
from tests.turns import repeated

DEVICES = """
INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_username, mqtt_password_hash,
                     credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id,
                     told_broker_ids)
SELECT uuid, uuid, 'test', key.fleet_id, 'device_' || uuid, md5(uuid), md5(uuid), 1, '', key.id,
       ARRAY[%s]
FROM (SELECT id, fleet_id FROM provisioning_keys WHERE fleet_id = 'demo' LIMIT 1) AS key,
     (SELECT 'made-' || n AS uuid FROM generate_series(1, %s) AS n) AS made
"""


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["reason"]


async def disable(stack: Stack, *, is_active: bool = False) -> None:
    answer = await stack.admin("PATCH", "/fleets/demo", json={"is_active": is_active})
    assert answer.status_code == 200, answer.text
    assert answer.json()["is_active"] is is_active


async def imported(stack: Stack, uuid: str) -> None:
    device = devices_pb2.ImportedDevice(
        uuid=uuid,
        fleet_id="demo",
        mqtt_username=uuid,
        password_hash="a" * 64,
        password_salt="s",
        password_algorithm="sha256",
    )
    request = devices_pb2.ImportDevicesRequest(devices=[device])
    [result] = (await stack.registry.devices("ImportDevices", request)).results
    assert result.created


async def test_no_device_of_a_disabled_fleet_is_served(stack: Stack) -> None:
    await stack.create_fleet("other")
    await stack.register("other-1", key=await stack.create_key(fleet_id="other"))
    assert (await stack.register("first")).status_code == 201
    users = "SELECT username FROM mqtt_users ORDER BY username"
    assert stack.database.execute(users) == [("device_first",), ("device_other-1",)]
    await disable(stack)
    assert refusal(await stack.register("second")) == (403, "FLEET_DISABLED")
    assert refusal(await stack.register("first")) == (403, "DEVICE_DISABLED")
    assert refusal(await stack.connection("first")) == (403, "DEVICE_DISABLED")
    # A client without the device's API key learns no more than for any device.
    assert refusal(await stack.connection("first", "another-key"))[0] == 401
    assert refusal(await stack.register("first", deviceApiKey="another-key"))[0] == 409
    # The key of a disabled fleet does not serve devices of other fleets either.
    assert refusal(await stack.register("other-1")) == (403, "FLEET_DISABLED")
    assert stack.database.execute(users) == [("device_other-1",)]
    assert (await stack.connection("other-1")).status_code == 200
    assert stack.database.execute("SELECT count(*) FROM devices") == [(2,)]

    await disable(stack, is_active=True)
    assert (await stack.register("second")).status_code == 201
    assert (await stack.register("first")).status_code == 200
    assert (await stack.connection("first")).status_code == 200
    lines = (await stack.admin("GET", "/audit-log?action=fleet.update")).json()["items"]
    assert [(line["before"], line["after"]) for line in lines] == [
        ({"is_active": False}, {"is_active": True}),
        ({"is_active": True}, {"is_active": False}),
    ]


async def test_no_device_of_a_disabled_fleet_is_provisioned_anew(stack: Stack) -> None:
    await stack.register("first")
    await stack.admin("PATCH", "/devices/first", json={"reprovisioning_allowed": True})
    await imported(stack, "old")
    await disable(stack)
    for uuid in ("first", "old"):
        answer = await stack.register(uuid, deviceApiKey="another-key")
        assert refusal(answer) == (403, "DEVICE_DISABLED")
    await disable(stack, is_active=True)
    for uuid in ("first", "old"):
        assert (await stack.register(uuid, deviceApiKey="another-key")).status_code == 200


async def test_a_fleet_can_be_created_disabled_and_null_is_refused(stack: Stack) -> None:
    made = await stack.admin("POST", "/fleets", json={"id": "later", "is_active": False})
    assert (made.status_code, made.json()["is_active"]) == (201, False)
    key = await stack.create_key(fleet_id="later")
    assert refusal(await stack.register("early", key=key)) == (403, "FLEET_DISABLED")
    null = await stack.admin("PATCH", "/fleets/demo", json={"is_active": None})
    assert null.status_code == 422
    # Over gRPC, the mask names the field and the field is not set.
    request = fleets_pb2.UpdateFleetRequest(id="demo", update_mask=FieldMask(paths=["is_active"]))
    with pytest.raises(Exception, match="true or false"):
        await stack.registry.fleets("UpdateFleet", request)


async def test_sql_disables_a_fleet_too(stack: Stack) -> None:
    assert (await stack.register("first")).status_code == 201  # the next registration is a guess
    stack.database.execute(
        "UPDATE fleets SET is_active = false WHERE id = 'demo'", role="mooring_operator"
    )
    assert refusal(await stack.register("second")) == (403, "FLEET_DISABLED")
    assert refusal(await stack.connection("first")) == (403, "DEVICE_DISABLED")
    assert stack.database.execute("SELECT uuid FROM devices") == [("first",)]


async def test_a_guess_that_waits_sees_that_the_fleet_is_disabled(stack: Stack) -> None:
    await stack.register("first")
    with owned(stack) as connection:
        connection.execute("UPDATE fleets SET is_active = false")
        late = asyncio.create_task(stack.register("second"))
        await waiting(stack, 1)
        connection.commit()
    assert refusal(await late) == (403, "FLEET_DISABLED")
    assert stack.database.execute("SELECT uuid FROM devices") == [("first",)]


async def test_a_renewal_that_waits_sees_that_the_fleet_is_disabled(stack: Stack) -> None:
    for _ in range(2):
        await stack.register("first")  # the devices are known, so nothing is guessed
    await stack.admin("PATCH", "/devices/first", json={"reprovisioning_allowed": True})
    with owned(stack) as connection:
        connection.execute("UPDATE fleets SET is_active = false")
        late = asyncio.create_task(stack.register("first", deviceApiKey="another-key"))
        await waiting(stack, 1)
        connection.commit()
    assert refusal(await late) == (403, "DEVICE_DISABLED")
    allowed = stack.database.execute("SELECT reprovisioning_allowed FROM devices")
    assert allowed == [(True,)]


async def test_no_device_is_made_once_a_fleet_is_disabled_during_registrations(
    stack: Stack,
) -> None:
    async with storm(stack, await stack.create_key()) as refused:
        for _ in range(5):
            seen = made_by_storm(stack)
            await until(lambda: made_by_storm(stack) > seen + 100)  # noqa: B023
            await disable(stack)
            acknowledged, before = made_by_storm(stack), len(refused)
            await until(lambda: len(refused) > before + 50)  # noqa: B023
            assert made_by_storm(stack) == acknowledged
            await disable(stack, is_active=True)
    assert set(refused) == {"FLEET_DISABLED"}


async def test_a_restricted_token_cannot_disable_or_delete_its_own_fleet(stack: Stack) -> None:
    made = await stack.admin(
        "POST", "/tokens", json={"name": "t", "role": "operator", "fleet_ids": ["demo"]}
    )
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    await stack.register("first")
    path = "/api/v1/fleets/demo"
    for field, value in {"is_active": False, "uuid_prefix": "x", "allowed_broker_ids": []}.items():
        answer = await stack.http.patch(path, json={field: value}, headers=headers)
        assert refusal(answer) == (403, "FORBIDDEN")
        assert answer.json()["field"] == field
    answer = await stack.http.delete(path, params={"with_devices": "true"}, headers=headers)
    assert refusal(answer) == (403, "FORBIDDEN")
    assert (await stack.connection("first")).status_code == 200
    # It may change devices of its fleet.
    device = await stack.http.patch(
        "/api/v1/devices/first", json={"is_active": False}, headers=headers
    )
    assert device.status_code == 200
    actor = Actor("t", Access.ADMIN, "", frozenset({"demo"}))
    with pytest.raises(Forbidden):
        await stack.registry.ask(
            fleets_pb2_grpc.FleetServiceStub,
            "DeleteFleet",
            fleets_pb2.DeleteFleetRequest(id="demo"),
            actor=actor,
        )


async def test_a_fleet_that_is_in_use_is_not_deleted(stack: Stack) -> None:
    await stack.register("first")
    await stack.admin("POST", "/expected-devices", json={"uuid": "e", "fleet_id": "demo"})
    refused = await stack.admin("DELETE", "/fleets/demo")
    assert refusal(refused) == (409, "FLEET_IN_USE")
    assert refused.json()["usage"] == {"devices": 1, "expected_devices": 1, "keys": 1}
    assert "1 expected device, 1 device, 1 key" in refused.json()["detail"]
    assert (await stack.connection("first")).status_code == 200
    assert refusal(await stack.admin("DELETE", "/fleets/nowhere")) == (404, "FLEET_NOT_FOUND")
    gone = await stack.admin("DELETE", "/fleets/nowhere?with_devices=true")
    assert refusal(gone) == (404, "FLEET_NOT_FOUND")
    await stack.create_fleet("empty", mqtt_broker_id=stack.default_broker_id)
    stack.database.execute(
        "INSERT INTO fleet_brokers VALUES ('empty', %s)", stack.default_broker_id
    )
    assert (await stack.admin("DELETE", "/fleets/empty")).status_code == 204
    assert (await stack.admin("GET", "/fleets/empty")).status_code == 404
    [line] = (await stack.admin("GET", "/audit-log?action=fleet.delete&subject=empty")).json()[
        "items"
    ]
    assert line["before"]["mqtt_broker_id"] == stack.default_broker_id


async def test_a_fleet_is_deleted_with_all_that_it_has_in_several_requests(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_service.administration.fleets.removal_store, "CHUNK", 2)
    # No time is left after a chunk, so each request deletes one chunk.
    monkeypatch.setattr(registry_service.administration.fleets.servicer, "RESERVE_S", 60.0)
    await stack.create_fleet("other")
    await stack.register("other-1", key=await stack.create_key(fleet_id="other"))
    await stack.create_key()
    for n in range(3):
        body = {"uuid": f"e{n}", "fleet_id": "demo"}
        await stack.admin("POST", "/expected-devices", json=body)
    await imported(stack, "old")
    for n in range(3):
        await stack.register(f"e{n}")
    left = []
    while True:
        answer = await stack.admin("DELETE", "/fleets/demo", params={"with_devices": "true"})
        if answer.status_code == 204:
            break
        assert refusal(answer) == (409, "FLEET_IN_USE")
        left.append(tuple(answer.json()["usage"].values()))
        assert refusal(await stack.connection("e2")) in (
            (403, "DEVICE_DISABLED"),
            (401, "DEVICE_UNAUTHENTICATED"),
        )
    # Expected devices, devices and keys that are left after each request.
    assert left == [(1, 4, 2), (0, 2, 2), (0, 0, 2)]
    for table in ("devices", "expected_devices", "provisioning_keys"):
        assert stack.database.execute(f"SELECT count(*) FROM {table} WHERE fleet_id = 'demo'") == [
            (0,)
        ]
    assert (await stack.connection("other-1")).status_code == 200
    assert refusal(await stack.register("e0")) == (401, "PROVISIONING_KEY_UNKNOWN")
    lines = (await stack.admin("GET", "/audit-log?subject=demo&limit=50")).json()["items"]
    named: dict[str, list[str]] = {}
    for line in lines:
        for names in (line["before"] or {}).values():
            if isinstance(names, list):
                named.setdefault(line["action"], []).extend(names)
    assert sorted(named["fleet.delete_devices"]) == ["e0", "e1", "e2", "old"]
    assert sorted(named["fleet.delete_expected_devices"]) == ["e0", "e1", "e2"]
    assert len(named["fleet.delete_keys"]) == 2
    # Requests that left something were refused; their refusals are written in the background.
    actions = [line["action"] for line in lines if line["refusal"] is None]
    assert (actions.count("fleet.delete"), actions.count("fleet.update")) == (1, 1)
    assert actions[0] == "fleet.delete"


async def test_a_fleet_that_is_created_again_is_another_one(stack: Stack) -> None:
    """The broker service and the registry use nothing that they know of the deleted one."""
    own = await stack.create_broker("Own", host="own.example.com")
    for n in range(3):
        await stack.admin("PATCH", "/fleets/demo", json={"name": f"Demo {n}"})
    await stack.admin("PATCH", "/fleets/demo", json={"mqtt_broker_id": own})
    first = (await stack.register("first")).json()
    assert first["mqtt"]["brokerConfig"]["host"] == "own.example.com"
    revision = "SELECT revision FROM fleets WHERE id = 'demo'"
    [(before,)] = stack.database.execute(revision)
    deleted = await stack.admin("DELETE", "/fleets/demo?with_devices=true")
    assert deleted.status_code == 204
    # The broker service knows of the deletion; otherwise the broker would be in use.
    assert (await stack.admin("DELETE", f"/brokers/{own}")).status_code == 204
    other = await stack.create_broker("Other", host="other.example.com")
    body = {"id": "demo", "mqtt_broker_id": other, "allowed_broker_ids": [other]}
    assert (await stack.admin("POST", "/fleets", json=body)).status_code == 201
    [(after,)] = stack.database.execute(revision)
    assert after > before
    again = await stack.register("first", key=await stack.create_key())
    assert again.status_code == 201
    assert again.json()["id"] != first["id"]
    assert again.json()["mqtt"]["brokerConfig"]["host"] == "other.example.com"
    assert again.json()["mqtt"]["password"] != first["mqtt"]["password"]


async def test_tokens_of_a_deleted_fleet_are_not_for_a_new_one_of_that_name(stack: Stack) -> None:
    await stack.create_fleet("empty")
    tokens = {}
    for name, fleet_ids in (("one", ["empty"]), ("both", ["empty", "demo"]), ("demo", ["demo"])):
        body = {"name": name, "role": "viewer", "fleet_ids": fleet_ids}
        tokens[name] = (await stack.admin("POST", "/tokens", json=body)).json()
    assert (await stack.admin("DELETE", "/fleets/empty")).status_code == 204
    await stack.create_fleet("empty")

    async def seen(name: str) -> Any:
        headers = {"Authorization": f"Bearer {tokens[name]['token']}"}
        answer = await stack.http.get("/api/v1/fleets", headers=headers)
        if answer.status_code != 200:
            return refusal(answer)
        return [fleet["id"] for fleet in answer.json()["items"]]

    async with asyncio.timeout(5):
        while await seen("one") != (401, "TOKEN_UNKNOWN"):
            await asyncio.sleep(0.02)
        while await seen("both") != ["demo"]:
            await asyncio.sleep(0.02)
    assert await seen("demo") == ["demo"]
    lines = (await stack.admin("GET", "/audit-log?action=token.&limit=4")).json()["items"]
    found = {(line["action"], line["subject"]) for line in lines}
    assert ("token.revoke", tokens["one"]["id"]) in found
    assert ("token.leave_fleet", tokens["both"]["id"]) in found
    assert not any(tokens["demo"]["id"] in line and "create" not in line[0] for line in found)


async def test_a_token_cannot_be_created_for_a_fleet_that_is_being_deleted(stack: Stack) -> None:
    await stack.create_fleet("empty")
    create = tokens_pb2.CreateTokenRequest(
        name="t", role=tokens_pb2.ROLE_VIEWER, fleets=tokens_pb2.TokenFleets(ids=["empty"])
    )
    with owned(stack) as connection:
        connection.execute("DELETE FROM fleets WHERE id = 'empty'")
        late = asyncio.create_task(stack.registry.tokens("CreateToken", create))
        await waiting(stack, 1)
        connection.commit()
    with pytest.raises(Exception, match="no such fleet"):
        await late


async def test_a_fleet_is_not_deleted_while_an_expected_device_is_added(stack: Stack) -> None:
    await stack.create_fleet("empty")
    with owned(stack) as connection:
        connection.execute("INSERT INTO expected_devices (uuid, fleet_id) VALUES ('e', 'empty')")
        late = asyncio.create_task(stack.admin("DELETE", "/fleets/empty"))
        await waiting(stack, 1)
        connection.commit()
    refused = await late
    assert refusal(refused) == (409, "FLEET_IN_USE")
    assert refused.json()["usage"]["expected_devices"] == 1


async def test_a_device_has_the_fleet_of_its_key(stack: Stack) -> None:
    await stack.create_fleet("other")
    await stack.register("first")
    with pytest.raises(Exception, match="devices_provisioned_by_key_id_fkey"):
        stack.database.execute("UPDATE devices SET fleet_id = 'other'")


async def test_devices_of_a_large_disabled_fleet_are_revoked_in_pieces(stack: Stack) -> None:
    stack.database.execute(
        "UPDATE mqtt_broker_config SET management = 'mosquitto', username = 'u',"
        " password_encrypted = '\\x00'"
    )
    stack.database.execute(DEVICES, stack.default_broker_id, 2_500)
    stack.database.execute("UPDATE devices SET is_active = false WHERE uuid = 'made-1'")
    stack.database.execute("DELETE FROM revocations")
    noted = "SELECT count(DISTINCT username), count(*) FROM revocations WHERE reason = 'disabled'"
    engine = engine_of(stack.database.url("mooring_registry"), pool_size=2)
    store = FleetRevocationStore(engine)
    try:
        await disable(stack)
        assert stack.database.execute(noted) == [(999, 999)]
        # Two processes revoke each device once.
        while any(await asyncio.gather(store.revoke(300), store.revoke(300))):
            pass
        assert stack.database.execute(noted) == [(2_499, 2_499)]
        assert stack.database.execute("SELECT count(*) FROM fleet_revocations") == [(0,)]
        # Devices of a fleet that is enabled again are not revoked.
        await disable(stack, is_active=True)
        await disable(stack)
        await disable(stack, is_active=True)
        assert not await store.revoke(300)
        assert stack.database.execute(noted) == [(2_499, 2_499 + 999)]
    finally:
        await engine.dispose()


async def test_the_background_loop_revokes_the_rest_of_a_disabled_fleet(stack: Stack) -> None:
    stack.database.execute(
        "UPDATE mqtt_broker_config SET management = 'mosquitto', username = 'u',"
        " password_encrypted = '\\x00'"
    )
    stack.database.execute(DEVICES, stack.default_broker_id, 6_500)
    await disable(stack)
    engine = engine_of(stack.database.url("mooring_registry"), pool_size=2)
    try:
        async with background(repeated(revoking(engine))):
            await until(lambda: not stack.database.execute("SELECT 1 FROM fleet_revocations"))
    finally:
        await engine.dispose()
    assert stack.database.execute("SELECT count(*) FROM revocations") == [(6_500,)]
