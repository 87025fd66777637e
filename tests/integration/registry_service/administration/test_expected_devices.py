"""Expected devices: their uuids are reserved, and the operator's values are used."""

import json
from typing import Any

import httpx2
import psycopg
import pytest
from mooring.broker.v1 import resolution_pb2

from tests.integration.registry_service.provisioning.test_batches import (
    reasons,
    register,
    registration,
)
from tests.stack import Stack


async def expect(stack: Stack, uuid: str, **fields: Any) -> httpx2.Response:
    body = {"uuid": uuid, "fleet_id": "demo", **fields}
    return await stack.admin("POST", "/expected-devices", json=body)


async def batch(stack: Stack, items: list[Any]) -> httpx2.Response:
    return await stack.admin("POST", "/expected-devices/batch", json=items)


async def sent(stack: Stack, body: bytes, content_type: str) -> httpx2.Response:
    """Sends a batch as these bytes."""
    return await stack.http.post(
        "/api/v1/expected-devices/batch",
        content=body,
        headers={"Authorization": f"Bearer {stack.admin_token}", "Content-Type": content_type},
    )


async def expected(stack: Stack, **filters: Any) -> list[str]:
    page = await stack.admin("GET", "/expected-devices", params=filters)
    return [item["uuid"] for item in page.json()["items"]]


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("reason", "")


def item(uuid: str, **fields: Any) -> dict[str, Any]:
    return {"uuid": uuid, "fleet_id": "demo", **fields}


async def test_an_operators_values_override_those_of_the_device(stack: Stack) -> None:
    pin = await stack.create_broker("Pin", host="pin.example.com")
    of_key = await stack.create_broker("Key's", host="key.example.com")
    key = await stack.create_key(default_broker_id=of_key)
    said = {
        "device_name": "Pump 7",
        "device_type": "pump",
        "mqtt_broker_id": pin,
        "region": "north",
        "location": {"latitude": 52.5, "longitude": 13.4},
    }
    made = await expect(stack, "whole", **said)
    assert made.status_code == 201
    assert made.json() == {
        **item("whole", **said),
        "created_at": made.json()["created_at"],
        "registered_at": None,
    }
    assert (await expect(stack, "bare")).status_code == 201

    whole = await stack.register("whole", key=key, region="south", deviceName="mine")
    assert whole.status_code == 201
    answer = whole.json()
    assert (answer["deviceName"], answer["deviceType"]) == ("Pump 7", "pump")
    assert answer["mqtt"]["broker"] == "mqtt://pin.example.com:1883"
    assert answer["mqtt"]["source"] == "device"
    device = (await stack.admin("GET", "/devices/whole")).json()
    assert {name: device[name] for name in said} == said

    bare = await stack.register("bare", key=key, region="south")
    assert bare.json()["mqtt"]["broker"] == "mqtt://key.example.com:1883"
    device = (await stack.admin("GET", "/devices/bare")).json()
    assert (device["device_name"], device["region"]) == ("Test Device", "south")

    # From then on it is a device like any other.
    again = await stack.register("whole", key=key)
    assert (again.status_code, again.json()["mqtt"]) == (200, answer["mqtt"])
    assert (await stack.admin("GET", "/expected-devices/whole")).json()["registered_at"]
    request = resolution_pb2.ResolveBrokerRequest(device_uuid="whole")
    resolved = await stack.broker.resolution("ResolveBroker", request)
    assert resolved.resolution.broker_id == pin


async def test_an_expected_uuid_is_reserved_for_its_fleet(stack: Stack) -> None:
    await stack.create_fleet("other")
    theirs = await stack.create_key(fleet_id="other")
    assert (
        await stack.register("first", key=theirs)
    ).status_code == 201  # later registrations are guesses
    await expect(stack, "d")
    for _ in range(2):
        assert refusal(await stack.register("d", key=theirs)) == (403, "UUID_RESERVED")
    assert (await stack.register("d")).status_code == 201
    assert refusal(await stack.register("d", key=theirs, deviceApiKey="thiefs-key")) == (
        409,
        "DEVICE_TAKEN",
    )


async def test_a_deleted_device_is_expected_again(stack: Stack) -> None:
    await stack.create_fleet("other")
    theirs = await stack.create_key(fleet_id="other")
    await expect(stack, "d", device_name="Pump 7")
    await stack.register("d")
    assert await expected(stack, registered="false") == []
    await stack.admin("DELETE", "/devices/d")
    assert await expected(stack, registered="false") == ["d"]
    assert refusal(await stack.register("d", key=theirs)) == (403, "UUID_RESERVED")
    assert (await stack.register("d")).json()["deviceName"] == "Pump 7"

    # Without the expectation, any fleet may use the uuid as soon as the device is deleted.
    assert (await stack.admin("DELETE", "/expected-devices/d")).status_code == 204
    assert (await stack.register("d")).status_code == 200
    await stack.admin("DELETE", "/devices/d")
    assert (await stack.register("d", key=theirs)).status_code == 201


async def test_new_expected_and_reserved_devices_in_one_batch(stack: Stack) -> None:
    await stack.create_fleet("other")
    await register(stack.registry, registration("before", stack.provisioning_key))
    await batch(stack, [item("ours", device_name="Ours"), item("theirs", fleet_id="other")])
    outcomes = await register(
        stack.registry,
        *(registration(u, stack.provisioning_key) for u in ("a", "ours", "theirs", "b", "before")),
    )
    assert reasons(outcomes) == ["created", "created", "UUID_RESERVED", "created", "created"]
    assert outcomes[1].device.device_name == "Ours"
    assert await expected(stack, registered="true") == ["ours"]


@pytest.mark.parametrize("form", ["list", "lines"])
async def test_a_batch_creates_what_it_can_and_names_the_rest(stack: Stack, form: str) -> None:
    await stack.register("there")
    await expect(stack, "known")
    items = [
        item("one", device_name="Größe"),
        item("there"),
        item("known"),
        item("nowhere", fleet_id="no-such-fleet"),
        item("pinned", mqtt_broker_id=stack.default_broker_id),
        item("badly-pinned", mqtt_broker_id=2**31 - 1),
        item("two"),
        item("two", device_name="again"),
    ]
    if form == "list":
        answer = await batch(stack, items)
    else:
        lines = b"\r\n\n".join(json.dumps(one).encode() for one in items) + b"\n"
        answer = await sent(stack, lines, "application/x-ndjson; charset=utf-8")
    assert answer.status_code == 200, answer.text
    assert answer.json()["created"] == 3
    assert [
        (one["index"], one["uuid"], one["field"], one["reason"]) for one in answer.json()["refused"]
    ] == [
        (1, "there", "uuid", "DEVICE_REGISTERED"),
        (2, "known", "uuid", "DEVICE_EXPECTED"),
        (3, "nowhere", "fleet_id", "FLEET_UNKNOWN"),
        (5, "badly-pinned", "mqtt_broker_id", "BROKER_UNKNOWN"),
        (7, "two", "uuid", "DEVICE_EXPECTED"),
    ]
    assert await expected(stack) == ["known", "one", "pinned", "two"]
    query = (
        "SELECT actor, action, subject, after FROM audit_log WHERE starts_with(action, 'expected')"
    )
    assert stack.database.execute(query + " ORDER BY id") == [
        ("tests", "expected_device.create", "known", {"fleet_id": "demo"}),
        (
            "tests",
            "expected_device.create",
            "",
            {"uuids": ["one", "pinned", "two"]},
        ),
    ]
    repeated = (await batch(stack, items[:1])).json()
    assert (repeated["created"], repeated["refused"][0]["reason"]) == (0, "DEVICE_EXPECTED")
    assert len(stack.database.execute(query)) == 2


async def test_a_batch_may_have_ten_thousand_devices_and_no_more(stack: Stack) -> None:
    items = [item(f"d{n:05}", device_name="n" * 255) for n in range(10_001)]
    refused = await batch(stack, items)
    assert (refused.status_code, refused.json()["reason"]) == (422, "INVALID_INPUT")
    assert await expected(stack) == []
    answer = await batch(stack, items[:10_000])
    assert answer.json() == {"created": 10_000, "refused": []}
    lines = stack.database.execute(
        "SELECT after -> 'uuids' FROM audit_log"
        " WHERE starts_with(action, 'expected') AND refusal = '' ORDER BY id"
    )
    assert [len(uuids) for (uuids,) in lines] == [1_000] * 10
    assert [uuid for (uuids,) in lines for uuid in uuids] == [f"d{n:05}" for n in range(10_000)]
    page = (await stack.admin("GET", "/expected-devices", params={"limit": 2})).json()
    following = {"limit": 2, "cursor": page["next_cursor"]}
    assert await expected(stack, **following) == ["d00002", "d00003"]
    huge = await sent(stack, b" " * (9 * 1024 * 1024), "application/json")
    assert huge.status_code == 413


BAD: list[tuple[Any, str]] = [
    (item("a/b"), "uuid"),
    (item("a\0"), "uuid"),
    (item(7), "uuid"),  # type: ignore[arg-type]
    ({"uuid": "a"}, "fleet_id"),
    (item("a", fleet_id="\0"), "fleet_id"),
    (item("a", device_name=""), "device_name"),
    (item("a", device_name="\0"), "device_name"),
    (item("a", device_type="t" * 65), "device_type"),
    (item("a", region="\0"), "region"),
    (item("a", mqtt_broker_id=0), "mqtt_broker_id"),
    (item("a", mqtt_broker_id=2**31), "mqtt_broker_id"),
    (item("a", location={"latitude": 91, "longitude": 0}), "location.latitude"),
    (item("a", location={"latitude": 1}), "location.longitude"),
    (item("a", registered_at="2020-01-01T00:00:00Z"), "registered_at"),
]


async def test_a_malformed_item_refuses_the_whole_batch_and_is_named(stack: Stack) -> None:
    for one, field in BAD:
        single = await stack.admin("POST", "/expected-devices", json=one)
        assert (single.status_code, single.json()["field"]) == (422, field), one
        many = await batch(stack, [item("fine"), one])
        assert (many.status_code, many.json()["field"]) == (422, f"[1].{field}"), one
        body = f"{json.dumps(item('fine'))}\n{json.dumps(one)}".encode()
        lines = await sent(stack, body, "application/x-ndjson")
        assert (lines.status_code, lines.json()["field"]) == (422, f"[1].{field}"), one
    for body, content_type, status in (
        (b"[]", "application/json", 422),
        (b"\n\n", "application/x-ndjson", 422),
        (b'{"uuid": "a"', "application/x-ndjson", 400),
        (b"\xff", "application/x-ndjson", 400),
        (b"[" * 5_000, "application/json", 400),
        (b"uuid,fleet_id", "text/csv", 415),
    ):
        assert (await sent(stack, body, content_type)).status_code == status, body
    assert await expected(stack) == []


async def test_refusals_of_one_expected_device_have_reasons(stack: Stack) -> None:
    await stack.register("there")
    await expect(stack, "known")
    for one, status, reason, field in (
        (item("there"), 409, "DEVICE_REGISTERED", "uuid"),
        (item("known"), 409, "DEVICE_EXPECTED", "uuid"),
        (item("a", fleet_id="nowhere"), 422, "FLEET_UNKNOWN", "fleet_id"),
        (item("a", mqtt_broker_id=99), 422, "BROKER_UNKNOWN", "mqtt_broker_id"),
    ):
        refused = await stack.admin("POST", "/expected-devices", json=one)
        assert refusal(refused) == (status, reason)
        assert refused.json()["field"] == field
    for method in ("GET", "DELETE"):
        for uuid in ("nobody", "%00", "a%2Fb"):
            gone = await stack.admin(method, f"/expected-devices/{uuid}")
            assert gone.status_code == 404, (method, uuid)


async def test_they_are_listed_by_fleet_and_by_registration(stack: Stack) -> None:
    await stack.create_fleet("other")
    await batch(stack, [item("a"), item("b", fleet_id="other"), item("c")])
    await stack.register("a")
    assert await expected(stack) == ["a", "b", "c"]
    assert await expected(stack, fleet_id="other") == ["b"]
    assert await expected(stack, registered="true") == ["a"]
    assert await expected(stack, registered="false", fleet_id="demo") == ["c"]
    bad = await stack.admin("GET", "/expected-devices", params={"cursor": "x"})
    assert (bad.status_code, bad.json()["field"]) == (422, "cursor")


async def test_a_deletion_is_in_the_audit_log_with_its_values(stack: Stack) -> None:
    await expect(stack, "d", region="north")
    await stack.admin("DELETE", "/expected-devices/d")
    query = "SELECT subject, before FROM audit_log WHERE action = 'expected_device.delete'"
    assert stack.database.execute(query) == [("d", {"fleet_id": "demo", "region": "north"})]


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("mooring_registry", "UPDATE expected_devices SET fleet_id = 'x'"),
        ("mooring_registry", "UPDATE expected_devices SET device_type = 'x'"),
        ("mooring_registry", "SELECT host FROM mqtt_broker_config"),
        ("mooring_operator", "DELETE FROM expected_devices"),
        ("mooring_operator", "UPDATE provisioning_keys SET uuid_prefix = NULL"),
        ("mooring_broker", "SELECT 1 FROM expected_devices"),
        ("mqtt_reader", "SELECT 1 FROM expected_devices"),
    ],
)
async def test_a_role_may_do_no_more_than_its_service(
    stack: Stack, role: str, statement: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stack.database.execute(statement, role=role)
