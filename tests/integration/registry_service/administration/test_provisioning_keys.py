"""Provisioning keys as operators manage them: their restrictions, and what refusals say."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from mooring.registry.v1 import provisioning_keys_pb2 as pb

import gateway.__main__
from chassis.errors import InvalidInput
from tests.integration.registry_service.provisioning.test_batches import (
    reasons,
    register,
    registration,
)
from tests.stack import Stack


async def made(stack: Stack, **fields: Any) -> dict[str, Any]:
    answer = await stack.admin("POST", "/provisioning-keys", json={"fleet_id": "demo", **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def changed(stack: Stack, key: dict[str, Any], **fields: Any) -> httpx2.Response:
    return await stack.admin("PATCH", f"/provisioning-keys/{key['id']}", json=fields)


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("reason", "")


def audited(stack: Stack, action: str) -> list[Any]:
    query = "SELECT actor, subject, before, after FROM audit_log WHERE action = %s ORDER BY id"
    return stack.database.execute(query, action)


RESTRICTED = {
    "allowed_device_types": ["sensor"],
    "source_networks": ["127.0.0.0/8", "::1/128"],
    "allowed_uuids": ["sensor-1", "sensor-2"],
    "uuid_prefix": "sensor-",
}


async def test_a_key_has_the_values_that_were_set(stack: Stack) -> None:
    key = await made(stack, **RESTRICTED, max_devices=5)
    secret = key.pop("key")
    assert {name: key[name] for name in RESTRICTED} == RESTRICTED
    assert (key["only_expected"], key["allowed_uuid_count"]) == (False, 2)
    path = f"/provisioning-keys/{key['id']}"
    assert (await stack.admin("GET", path)).json() == key

    (await stack.register("sensor-1", key=secret, deviceType="sensor")).raise_for_status()
    answer = await changed(stack, key, description="x", uuid_prefix=None, max_devices=1)
    after = answer.json()
    assert (after["description"], after["uuid_prefix"], after["max_devices"]) == ("x", None, 1)
    assert (after["devices_provisioned"], after["allowed_uuids"]) == (1, key["allowed_uuids"])
    assert after["last_used_at"] is not None
    assert after["updated_at"] > key["updated_at"]

    # The limit cannot be below the use; a change of nothing writes no line to the audit log.
    await stack.register("sensor-1", key=await stack.create_key())
    (await stack.register("sensor-2", key=secret, deviceType="sensor"))
    assert (await changed(stack, key, max_devices=None)).status_code == 200
    (await stack.register("sensor-2", key=secret, deviceType="sensor")).raise_for_status()
    below = await changed(stack, key, max_devices=1, description="lost")
    assert refusal(below) == (409, "MAX_DEVICES_BELOW_USE")
    assert below.json()["field"] == "max_devices"
    again = (await changed(stack, key, description="x")).json()
    assert (again["description"], again["max_devices"]) == ("x", None)
    assert [line[2:] for line in audited(stack, "provisioning_key.update")] == [
        (
            {"description": "", "uuid_prefix": "sensor-", "max_devices": 5},
            {"description": "x", "uuid_prefix": None, "max_devices": 1},
        ),
        ({"max_devices": 1}, {"max_devices": None}),
    ]
    (created,) = [
        line for line in audited(stack, "provisioning_key.create") if line[1] == key["id"]
    ]
    assert created[0] == "tests"
    assert created[3] == {"fleet_id": "demo", "max_devices": 5, **RESTRICTED}
    assert secret not in str(stack.database.execute("SELECT audit_log::text FROM audit_log"))


async def test_a_change_that_names_nothing_leaves_everything(stack: Stack) -> None:
    key = await made(stack, **RESTRICTED)
    del key["key"]
    assert (await changed(stack, key)).json() == key
    assert audited(stack, "provisioning_key.update") == []


@pytest.mark.parametrize(
    ("restriction", "good", "bad", "reason"),
    [
        (
            {"allowed_device_types": ["sensor"]},
            {"deviceType": "sensor"},
            {"deviceType": "router"},
            "DEVICE_TYPE_NOT_ALLOWED",
        ),
        ({"allowed_uuids": ["good"]}, {}, {}, "UUID_NOT_ALLOWED"),
        ({"uuid_prefix": "go"}, {}, {}, "UUID_NOT_ALLOWED"),
        ({"only_expected": True}, {}, {}, "DEVICE_NOT_EXPECTED"),
    ],
)
async def test_a_key_does_not_make_devices_outside_its_restrictions(
    stack: Stack, restriction: dict[str, Any], good: Any, bad: Any, reason: str
) -> None:
    key = await made(stack, **restriction)
    await stack.admin("POST", "/expected-devices", json={"uuid": "good", "fleet_id": "demo"})
    # Three times: the device is read, then guessed, then it exists already.
    for n in range(3):
        refused = await stack.register("bad", key=key["key"], **bad)
        assert refusal(refused) == (403, reason)
        assert "field" not in refused.json()
        assert "bad" not in refused.json()["detail"]
        answer = await stack.register("good", key=key["key"], **good)
        assert answer.status_code == (200 if n else 201), answer.text
    # An existing device with its API key is served, whatever the key's restrictions are now.
    assert (await stack.register("bad", **bad)).status_code == 201
    assert (await stack.register("bad", key=key["key"], **bad)).status_code == 200
    # Without its API key, the answer does not say that it exists, and it is not provisioned anew.
    thief = await stack.register("bad", key=key["key"], **bad, deviceApiKey="another-key")
    assert refusal(thief) == (403, reason)
    await stack.admin("PATCH", "/devices/bad", json={"reprovisioning_allowed": True})
    thief = await stack.register("bad", key=key["key"], **bad, deviceApiKey="another-key")
    assert refusal(thief) == (403, reason)
    assert (await changed(stack, key, **dict.fromkeys(restriction, None))).status_code == (
        422 if "only_expected" in restriction else 200
    )
    await changed(
        stack,
        key,
        **{name: False if value is True else None for name, value in restriction.items()},
    )
    renewed = await stack.register("bad", key=key["key"], **bad, deviceApiKey="another-key")
    assert renewed.status_code == 200


async def test_a_network_restricts_every_use_of_a_key(stack: Stack) -> None:
    key = await made(stack, source_networks=["127.0.0.0/8"])
    assert (await stack.register("d", key=key["key"])).status_code == 201
    await changed(stack, key, source_networks=["192.0.2.0/24", "2001:db8::/32"])
    for uuid in ("d", "e"):
        refused = await stack.register(uuid, key=key["key"])
        assert refusal(refused) == (403, "NETWORK_NOT_ALLOWED")
    # From other networks nothing else is revealed, not even that the key was revoked.
    await stack.admin("DELETE", f"/provisioning-keys/{key['id']}")
    assert refusal(await stack.register("d", key=key["key"])) == (403, "NETWORK_NOT_ALLOWED")
    # Its devices can still ask from anywhere with their own API keys.
    assert (await stack.connection("d")).status_code == 200


async def test_a_caller_without_a_source_address_is_in_no_network(stack: Stack) -> None:
    key = await stack.create_key(
        restrictions=pb.Restrictions(source_networks=pb.Allowed(values=["192.0.2.0/24"]))
    )
    outcomes = await register(
        stack.registry,
        registration("a", key),
        registration("b", key, source_address="192.0.2.7"),
        registration("c", key, source_address="::ffff:192.0.2.7"),
        registration("d", key, source_address="198.51.100.1"),
        registration("e", key, source_address="no address"),
        registration("f", key, source_address="x" * 65),
        registration("g", key, source_address="\0"),
    )
    refused = "NETWORK_NOT_ALLOWED"
    assert reasons(outcomes) == [
        refused,
        "created",
        "created",
        refused,
        refused,
        "INVALID_INPUT",
        "INVALID_INPUT",
    ]
    assert outcomes[6].error.field == "source_address"


async def test_behind_a_trusted_proxy_the_clients_address_counts(stack: Stack) -> None:
    key = await made(stack, source_networks=["192.0.2.0/24"])
    stack.http.headers["X-Forwarded-For"] = "192.0.2.7"
    refused = await stack.register("d", key=key["key"])
    assert refusal(refused) == (403, "NETWORK_NOT_ALLOWED")

    config = stack.gateway_config(trusted_proxies="127.0.0.0/8")
    url = await stack.exit.enter_async_context(gateway.__main__.running(config))
    async with httpx2.AsyncClient(base_url=url) as http:
        stack.http = http
        for said, status in (
            (None, 403),
            ("192.0.2.7, 198.51.100.1", 403),
            ("192.0.2.7, nobody", 403),
            ("198.51.100.1, 192.0.2.7", 201),
            ("192.0.2.7, 127.0.0.9", 200),
        ):
            http.headers.update({"X-Forwarded-For": said} if said else {})
            assert (await stack.register("d", key=key["key"])).status_code == status, said


async def test_behind_a_trusted_proxy_wrong_tokens_count_for_the_clients_address(
    stack: Stack,
) -> None:
    config = stack.gateway_config(trusted_proxies="127.0.0.0/8", limit_failed_per_address="1/hour")
    url = await stack.exit.enter_async_context(gateway.__main__.running(config))
    async with httpx2.AsyncClient(base_url=url) as http:
        statuses = [
            (
                await http.get(
                    "/api/v1/fleets",
                    headers={"Authorization": f"Bearer wrong-{n}", "X-Forwarded-For": address},
                )
            ).status_code
            for n, address in enumerate(["192.0.2.1", "192.0.2.1", "192.0.2.2"])
        ]
    assert statuses == [401, 429, 401]


async def test_an_expired_key_still_serves_its_own_devices(stack: Stack) -> None:
    key = await made(stack)
    await stack.register("d", key=key["key"])
    assert (await changed(stack, key, expires_at="2020-01-01T00:00:00Z")).status_code == 200
    assert refusal(await stack.register("e", key=key["key"])) == (403, "PROVISIONING_KEY_EXPIRED")
    assert (await stack.register("d", key=key["key"])).status_code == 200
    assert (await changed(stack, key, expires_at=None)).json()["expires_at"] is None
    assert (await stack.register("e", key=key["key"])).status_code == 201


async def test_keys_are_listed_by_fleet_and_revocation(stack: Stack) -> None:
    await stack.create_fleet("other")
    theirs, gone = await made(stack, fleet_id="other"), await made(stack, fleet_id="other")
    await stack.admin("DELETE", f"/provisioning-keys/{gone['id']}")

    async def listed(**filters: Any) -> set[str]:
        answer = await stack.admin("GET", "/provisioning-keys", params=filters)
        return {key["id"] for key in answer.json()["items"]}

    assert await listed(fleet_id="other") == {theirs["id"], gone["id"]}
    assert await listed(fleet_id="other", is_active="true") == {theirs["id"]}
    assert await listed(is_active="false") == {gone["id"]}
    assert len(await listed()) == 3
    assert await listed(fleet_id="nobodys") == set()
    for filters, field in (({"fleet_id": "a\0"}, "fleet_id"), ({"is_active": "x"}, "is_active")):
        refused = await stack.admin("GET", "/provisioning-keys", params=filters)
        assert (refused.status_code, refused.json()["field"]) == (422, field)


async def test_a_revocation_disables_the_keys_own_devices_on_request(stack: Stack) -> None:
    key, other = await made(stack), await made(stack)
    uuids = [f"d{n:04}" for n in range(2_500)]
    for begin in range(0, len(uuids), 500):
        part = uuids[begin : begin + 500]
        await register(stack.registry, *(registration(uuid, key["key"]) for uuid in part))
        await register(stack.registry, registration(f"other-{begin}", other["key"]))
    stack.database.execute("UPDATE devices SET is_active = false WHERE uuid = 'd0000'")
    path = f"/provisioning-keys/{key['id']}/revoke"
    kept = await stack.admin("POST", path, json={})
    assert kept.json() == {"devices_deactivated": 0, "is_complete": True}
    assert refusal(await stack.register("d0001", key=key["key"]))[1] == "PROVISIONING_KEY_REVOKED"
    assert (await stack.connection("d0001", "key-of-d0001")).status_code == 200

    done = await stack.admin("POST", path, json={"devices": "deactivate"})
    assert done.json() == {"devices_deactivated": 2_499, "is_complete": True}
    assert refusal(await stack.connection("d0001", "key-of-d0001")) == (403, "DEVICE_DISABLED")
    active = stack.database.execute("SELECT uuid FROM devices WHERE is_active ORDER BY uuid")
    assert active == [(f"other-{n}",) for n in (0, 1000, 1500, 2000, 500)]
    again = await stack.admin("POST", path, json={"devices": "deactivate"})
    assert again.json() == {"devices_deactivated": 0, "is_complete": True}
    assert len(audited(stack, "provisioning_key.revoke")) == 1
    lines = [line[3] for line in audited(stack, "provisioning_key.deactivate_devices")]
    assert sorted(uuid for line in lines for uuid in line["uuids"]) == uuids[1:]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"source_networks": ["10.0.0.1/8"]}, "source_networks[0]"),
    ({"source_networks": ["10.0.0.0/8", "10.0.0.0/8\0"]}, "source_networks[1]"),
    ({"source_networks": []}, "source_networks"),
    ({"source_networks": "10.0.0.0/8"}, "source_networks"),
    ({"source_networks": [8]}, "source_networks[0]"),
    ({"allowed_uuids": ["a", "b/c"]}, "allowed_uuids[1]"),
    ({"allowed_uuids": [f"u{n}" for n in range(1_001)]}, "allowed_uuids"),
    ({"allowed_device_types": ["a\0"]}, "allowed_device_types[0]"),
    ({"uuid_prefix": ""}, "uuid_prefix"),
    ({"uuid_prefix": "\ufffd"}, "uuid_prefix"),
    ({"only_expected": "yes"}, "only_expected"),
    ({"description": "a\0"}, "description"),
    ({"max_devices": 0}, "max_devices"),
    ({"default_broker_id": 2**31 - 1}, "default_broker_id"),
    ({"expires_at": "yesterday"}, "expires_at"),
    ({"fleet_id": "a\0"}, "fleet_id"),
    ({"is_active": True}, "is_active"),
]


async def test_invalid_fields_are_named_and_nothing_is_stored(stack: Stack) -> None:
    key = await made(stack)
    before = stack.database.execute("SELECT * FROM provisioning_keys ORDER BY id")
    for fields, field in BAD:
        body = {"fleet_id": "demo", **fields}
        refused = await stack.admin("POST", "/provisioning-keys", json=body)
        assert (refused.status_code, refused.json()["field"]) == (422, field), fields
        refused = await changed(stack, key, **fields)
        assert (refused.status_code, refused.json()["field"]) == (422, field), fields
    unknown = ("PATCH", "GET", "DELETE")
    for method, key_id in zip(unknown * 2, [str(uuid4())] * 3 + ["%00"] * 3, strict=True):
        body = {"json": {}} if method == "PATCH" else {}
        gone = await stack.admin(method, f"/provisioning-keys/{key_id}", **body)
        assert refusal(gone) == (404, "PROVISIONING_KEY_NOT_FOUND"), method
    gone = await stack.admin("POST", f"/provisioning-keys/{uuid4()}/revoke", json={})
    assert refusal(gone) == (404, "PROVISIONING_KEY_NOT_FOUND")
    bad = await stack.admin("POST", f"/provisioning-keys/{key['id']}/revoke", json={"devices": "x"})
    assert (bad.status_code, bad.json()["field"]) == (422, "devices")
    assert stack.database.execute("SELECT * FROM provisioning_keys ORDER BY id") == before


async def test_an_unknown_field_in_the_mask_is_the_callers_fault(stack: Stack) -> None:
    key = await made(stack)
    for path in ("restrictions", "restrictions.x", "allowed_uuids", "is_active", "key_hash", ""):
        request = pb.UpdateProvisioningKeyRequest(id=key["id"], update_mask=FieldMask(paths=[path]))
        with pytest.raises(InvalidInput) as refused:
            await stack.registry.keys("UpdateProvisioningKey", request)
        assert refused.value.field == "update_mask"


async def test_the_database_refuses_empty_restrictions(stack: Stack) -> None:
    for column in ("allowed_device_types", "source_networks", "allowed_uuids"):
        with pytest.raises(psycopg.errors.CheckViolation):
            stack.database.execute(f"UPDATE provisioning_keys SET {column} = '{{}}'")


async def test_use_is_counted_without_a_new_revision_of_the_key(stack: Stack) -> None:
    """Otherwise concurrent registrations would make each other's guesses wrong."""
    revision = "SELECT revision FROM provisioning_keys"
    before = stack.database.execute(revision)
    await asyncio.gather(*(stack.register(f"d{n}") for n in range(50)))
    assert stack.database.execute(revision) == before
    stack.database.execute("UPDATE provisioning_keys SET uuid_prefix = 'e'")
    assert stack.database.execute(revision) == [(before[0][0] + 1,)]
    assert refusal(await stack.register("d-new"))[1] == "UUID_NOT_ALLOWED"
