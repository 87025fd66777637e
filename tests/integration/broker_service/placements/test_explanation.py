"""Explanations of resolutions: over HTTP and gRPC, for supposed facts, and during outages."""

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from mooring.broker.v1 import resolution_pb2 as pb
from mooring.broker.v1 import resolution_pb2_grpc
from mooring.registry.v1 import tokens_pb2

from chassis.errors import InvalidInput, Unavailable
from chassis.trust import Access, Actor
from tests.integration.registry_service.provisioning.test_fallback import shut_out
from tests.stack import Stack

UNKNOWN_ID = 999_999


async def explained(stack: Stack, uuid: str, **supposed: Any) -> dict[str, Any]:
    if supposed:
        response = await stack.admin("POST", f"/devices/{uuid}/broker/explain", json=supposed)
    else:
        response = await stack.admin("GET", f"/devices/{uuid}/broker")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def reasons(explanation: dict[str, Any]) -> list[str]:
    return [step["reason"] for step in explanation["steps"]]


async def test_a_device_as_it_is(stack: Stack) -> None:
    await stack.register("one", region="eu", location={"latitude": 52.5, "longitude": 13.25})
    explanation = await explained(stack, "one")
    assert explanation["uuid"] == "one"
    assert (explanation["source"], explanation["mqtt_broker_id"], explanation["url"]) == (
        "default",
        stack.default_broker_id,
        "mqtt://localhost:5883",
    )
    assert explanation["facts"] == {
        "mqtt_broker_id": None,
        "pool_id": None,
        "fleet_id": "demo",
        "region": "eu",
        "location": {"latitude": 52.5, "longitude": 13.25},
    }
    assert [step["step"] for step in explanation["steps"]] == [
        "device",
        "rollout",
        "fleet",
        "region",
        "default_pool",
        "default",
        "environment",
    ]
    assert reasons(explanation) == [
        "NO_PIN",
        "NO_ROLLOUT",
        "FLEET_HAS_NO_BROKER",
        "REGION_HAS_NO_BROKER",
        "NO_DEFAULT_POOL",
        "DECIDED",
        "DECIDED_EARLIER",
    ]
    assert [step["has_decided"] for step in explanation["steps"]] == [
        *[False] * 5,
        True,
        False,
    ]
    assert explanation["told_broker_ids"] == [stack.default_broker_id]
    assert explanation["told_at"] is not None
    assert explanation["stale"] is False


async def test_the_explanation_is_what_the_device_is_answered(stack: Stack) -> None:
    broker_id = await stack.create_broker("Fleet's", host="fleet.example.com")
    await stack.create_fleet("north", mqtt_broker_id=broker_id)
    key = await stack.create_key(fleet_id="north")
    for uuid, pin in (("pinned", stack.default_broker_id), ("placed", None)):
        await stack.register(uuid, key=key)
        await stack.admin("PATCH", f"/devices/{uuid}", json={"mqtt_broker_id": pin})
        mqtt = (await stack.connection(uuid)).json()
        explanation = await explained(stack, uuid)
        assert (explanation["source"], explanation["url"]) == (mqtt["source"], mqtt["broker"])
        assert explanation["told_broker_ids"] == [explanation["mqtt_broker_id"]]


async def test_it_names_the_assigned_broker_where_the_device_knows_another(stack: Stack) -> None:
    await stack.register("one")
    broker_id = await stack.create_broker("New")
    await stack.admin("PATCH", "/devices/one", json={"mqtt_broker_id": broker_id})
    explanation = await explained(stack, "one")
    assert explanation["mqtt_broker_id"] == broker_id
    assert explanation["told_broker_ids"] == [stack.default_broker_id]


async def test_what_if(stack: Stack) -> None:
    pin = await stack.create_broker("Pin", host="pin.example.com")
    own = await stack.create_broker("Own", host="own.example.com")
    await stack.create_fleet("north", mqtt_broker_id=own)
    await stack.register("one")
    await stack.admin("PATCH", "/devices/one", json={"mqtt_broker_id": pin, "region": "eu"})
    before = stack.database.execute("SELECT * FROM devices")

    assert (await explained(stack, "one", mqtt_broker_id=None))["source"] == "default"
    moved = await explained(stack, "one", mqtt_broker_id=None, fleet_id="north", region=None)
    assert (moved["source"], moved["mqtt_broker_id"]) == ("fleet", own)
    assert moved["facts"] == {
        "mqtt_broker_id": None,
        "pool_id": None,
        "fleet_id": "north",
        "region": None,
        "location": None,
    }
    # Facts that are not named stay as they are.
    assert (await explained(stack, "one", fleet_id="north"))["mqtt_broker_id"] == pin
    failed = await explained(stack, "one", inactive_broker_ids=[pin])
    assert (reasons(failed)[0], failed["source"]) == ("BROKER_INACTIVE", "default")
    swapped = await explained(stack, "one", mqtt_broker_id=None, default_broker_id=own)
    assert (swapped["source"], swapped["url"]) == ("default", "mqtt://own.example.com:1883")
    bare = await explained(stack, "one", mqtt_broker_id=None, default_broker_id=None)
    assert (bare["source"], bare["mqtt_broker_id"], bare["url"]) == (
        "environment",
        None,
        "mqtt://mosquitto:1883",
    )
    await stack.admin("PATCH", f"/brokers/{pin}", json={"is_active": False})
    assert (await explained(stack, "one"))["source"] == "default"
    revived = await explained(stack, "one", active_broker_ids=[pin])
    assert (revived["source"], revived["mqtt_broker_id"]) == ("device", pin)
    assert stack.database.execute("SELECT * FROM devices") == before


async def test_a_restricted_fleet_without_an_allowed_active_broker(stack: Stack) -> None:
    own = await stack.create_broker("Own")
    created = await stack.admin(
        "POST",
        "/fleets",
        json={"id": "acme", "allowed_broker_ids": [own], "mqtt_broker_id": own},
    )
    assert created.status_code == 201
    response = await stack.admin(
        "POST",
        "/resolution/explain",
        json={"fleet_id": "acme", "mqtt_broker_id": stack.default_broker_id},
    )
    assert response.json()["mqtt_broker_id"] == own
    response = await stack.admin(
        "POST", "/resolution/explain", json={"fleet_id": "acme", "inactive_broker_ids": [own]}
    )
    explanation = response.json()
    assert (response.status_code, explanation["source"], explanation["url"]) == (200, None, None)
    assert reasons(explanation) == [
        "NO_PIN",
        "NO_ROLLOUT",
        "BROKER_INACTIVE",
        "NO_REGION",
        "NO_DEFAULT_POOL",
        "BROKER_NOT_ALLOWED",
        "FLEET_IS_RESTRICTED",
    ]
    # A fleet that was created a moment ago is known at once.
    assert "uuid" not in explanation


async def test_facts_alone(stack: Stack) -> None:
    response = await stack.admin("POST", "/resolution/explain", json={})
    assert response.status_code == 200
    explanation = response.json()
    assert reasons(explanation)[:4] == ["NO_PIN", "NO_FLEET", "NO_FLEET", "NO_REGION"]
    assert explanation["source"] == "default"


@pytest.mark.parametrize(
    ("supposed", "reason", "field"),
    [
        ({"mqtt_broker_id": UNKNOWN_ID}, "BROKER_UNKNOWN", "mqtt_broker_id"),
        ({"default_broker_id": UNKNOWN_ID}, "BROKER_UNKNOWN", "default_broker_id"),
        ({"active_broker_ids": [1, UNKNOWN_ID]}, "BROKER_UNKNOWN", "active_broker_ids"),
        ({"inactive_broker_ids": [UNKNOWN_ID]}, "BROKER_UNKNOWN", "inactive_broker_ids"),
        (
            {"active_broker_ids": [1], "inactive_broker_ids": [1]},
            "INVALID_INPUT",
            "inactive_broker_ids",
        ),
        ({"active_broker_ids": [1] * 1_001}, "INVALID_INPUT", "active_broker_ids"),
        ({"fleet_id": "no-such-fleet"}, "FLEET_UNKNOWN", "fleet_id"),
        ({"fleet_id": "not an id"}, "INVALID_INPUT", "fleet_id"),
        ({"region": "a\0b"}, "INVALID_INPUT", "region"),
        (
            {"location": {"latitude": 91, "longitude": 0}},
            "INVALID_INPUT",
            "location.latitude",
        ),
        ({"mqtt_broker_id": 0}, "INVALID_INPUT", "mqtt_broker_id"),
        ({"mqtt_brokerid": 1}, "INVALID_INPUT", "mqtt_brokerid"),
    ],
)
async def test_invalid_suppositions_are_refused(
    stack: Stack, supposed: dict[str, Any], reason: str, field: str
) -> None:
    response = await stack.admin("POST", "/resolution/explain", json=supposed)
    assert response.status_code == 422
    assert (response.json()["reason"], response.json()["field"]) == (reason, field)


async def test_a_device_that_is_not_registered(stack: Stack) -> None:
    for response in (
        await stack.admin("GET", "/devices/nobody/broker"),
        await stack.admin("POST", "/devices/nobody/broker/explain", json={"mqtt_broker_id": 9}),
    ):
        assert (response.status_code, response.json()["reason"]) == (404, "DEVICE_NOT_FOUND")
    request = pb.ExplainResolutionRequest(device_uuid="nobody")
    answer = await stack.broker.resolution("ExplainResolution", request)
    assert (answer.known, answer.source) == (False, pb.SOURCE_DEFAULT)
    for request in (
        pb.ExplainResolutionRequest(device_uuid="a b"),
        pb.ExplainResolutionRequest(mask=FieldMask(paths=["password"])),
    ):
        with pytest.raises(InvalidInput):
            await stack.broker.resolution("ExplainResolution", request)


async def test_a_viewer_may_ask_for_an_explanation(stack: Stack) -> None:
    stub = resolution_pb2_grpc.ResolutionServiceStub
    request = pb.ExplainResolutionRequest()
    viewer = Actor("v", Access.VIEWER)
    assert await stack.broker.ask(stub, "ExplainResolution", request, actor=viewer)
    with pytest.raises(Unavailable):
        await stack.broker.ask(stub, "ExplainResolution", request, actor=None)
    await stack.register("one")
    token = tokens_pb2.CreateTokenRequest(name="v", role=tokens_pb2.ROLE_VIEWER)
    secret = (await stack.registry.tokens("CreateToken", token)).secret
    response = await stack.http.get(
        "/api/v1/devices/one/broker", headers={"Authorization": f"Bearer {secret}"}
    )
    assert response.status_code == 200


async def test_without_its_database_the_broker_service_says_that_it_may_be_out_of_date(
    stack: Stack,
) -> None:
    await stack.register("one")
    with shut_out(stack, "mooring_broker"):
        async with asyncio.timeout(10):
            while True:
                response = await stack.admin("POST", "/resolution/explain", json={})
                if response.json()["stale"]:
                    break
                await asyncio.sleep(0.02)
        assert response.json()["source"] == "default"
        # The device's pin cannot be read, and the service does not guess.
        response = await stack.admin("GET", "/devices/one/broker")
        assert response.status_code == 503
        assert "Retry-After" in response.headers
        # A broker that is not known here may have been created meanwhile.
        response = await stack.admin(
            "POST", "/resolution/explain", json={"mqtt_broker_id": UNKNOWN_ID}
        )
        assert (response.status_code, response.json()["reason"]) == (503, "PLACEMENT_UNKNOWN")
    async with asyncio.timeout(10):
        while (await stack.admin("GET", "/devices/one/broker")).status_code != 200:
            await asyncio.sleep(0.02)
