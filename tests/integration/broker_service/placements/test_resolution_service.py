"""Which broker serves a device, over gRPC and after the note's SQL."""

import asyncio
from typing import Any

import pytest
from mooring.broker.v1 import brokers_pb2
from mooring.broker.v1 import resolution_pb2 as pb

from chassis.errors import InvalidInput
from tests.stack import Stack


async def resolved(stack: Stack, uuid: str) -> pb.ResolveBrokerResponse:
    request = pb.ResolveBrokerRequest(device_uuid=uuid)
    response: pb.ResolveBrokerResponse = await stack.broker.resolution("ResolveBroker", request)
    return response


async def eventually(stack: Stack, uuid: str, source: pb.Source.ValueType) -> Any:
    """Changes by SQL are announced, so they take effect a little later."""
    async with asyncio.timeout(5):
        while (response := await resolved(stack, uuid)).resolution.source != source:
            await asyncio.sleep(0.01)
    return response


async def test_by_uuid_alone(stack: Stack) -> None:
    await stack.register("one")
    response = await resolved(stack, "one")
    assert response.resolution.source == pb.SOURCE_DEFAULT
    assert response.resolution.known
    assert not response.resolution.stale
    assert response.url == response.broker.url == "mqtt://localhost:5883"
    assert not response.broker.HasField("ca_cert")


async def test_an_unknown_uuid_goes_to_the_default(stack: Stack) -> None:
    response = await resolved(stack, "nobody")
    assert response.resolution.source == pb.SOURCE_DEFAULT
    assert not response.resolution.known


async def test_a_uuid_that_cannot_be_one_is_refused(stack: Stack) -> None:
    for uuid in ("", "a b", "a\0b", "x" * 65):
        with pytest.raises(InvalidInput):
            await resolved(stack, uuid)


async def test_the_order_of_resolution(stack: Stack) -> None:
    pinned = await stack.create_broker("Pinned")
    fleets = await stack.create_broker("Fleet's")
    await stack.create_fleet("north", mqtt_broker_id=fleets)
    key = await stack.create_key(fleet_id="north")
    await stack.register("one", key=key)
    assert (await resolved(stack, "one")).resolution.source == pb.SOURCE_FLEET
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": pinned})
    response = await resolved(stack, "one")
    assert (response.resolution.source, response.broker.id) == (pb.SOURCE_DEVICE, pinned)
    await stack.admin("PATCH", f"/brokers/{pinned}", json={"is_active": False})
    assert (await resolved(stack, "one")).resolution.source == pb.SOURCE_FLEET
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": None})
    await stack.admin("PATCH", "/fleets/north", json={"mqtt_broker_id": None})
    assert (await eventually(stack, "one", pb.SOURCE_DEFAULT)).broker.id == stack.default_broker_id


async def test_without_any_broker_the_environment_decides(stack: Stack) -> None:
    await stack.register("one")
    stack.database.execute("UPDATE mqtt_broker_config SET is_default = false")
    response = await eventually(stack, "one", pb.SOURCE_ENVIRONMENT)
    assert response.url == "mqtt://mosquitto:1883"
    assert not response.HasField("broker")
    mqtt = (await stack.register("one")).json()["mqtt"]
    assert (mqtt["broker"], mqtt["source"]) == ("mqtt://mosquitto:1883", "environment")
    assert "brokerConfig" not in mqtt
    assert stack.database.execute("SELECT told_broker_ids FROM devices") == [([],)]


async def test_a_keys_default_broker_becomes_the_pin(stack: Stack) -> None:
    broker_id = await stack.create_broker("Key's")
    key = await stack.create_key(default_broker_id=broker_id)
    mqtt = (await stack.register("one", key=key)).json()["mqtt"]
    assert (mqtt["source"], mqtt["brokerConfig"]["host"]) == ("device", "h")
    assert (await stack.admin("GET", "/devices/one")).json()["mqtt_broker_id"] == broker_id


async def test_a_pin_is_never_rewritten_by_registering_again(stack: Stack) -> None:
    await stack.register("one")
    broker_id = await stack.create_broker("Pinned")
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": broker_id})
    mqtt = (await stack.register("one")).json()["mqtt"]
    assert mqtt["source"] == "device"
    assert (await stack.admin("GET", "/devices/one")).json()["mqtt_broker_id"] == broker_id


async def test_a_restricted_fleet_stays_with_its_brokers(stack: Stack) -> None:
    own = await stack.create_broker("Own")
    # The key is for a fleet that was created a moment ago, so the announcement may still be on
    # its way: the fleet's devices must not be sent to the default meanwhile.
    created = await stack.admin("POST", "/fleets", json={"id": "acme", "allowed_broker_ids": [own]})
    assert created.status_code == 201
    key = await stack.create_key(fleet_id="acme")
    refused = await stack.register("one", key=key)
    assert (refused.status_code, refused.json()["reason"]) == (503, "NO_BROKER_FOR_FLEET")
    assert int(refused.headers["Retry-After"]) >= 1
    assert stack.database.execute("SELECT count(*) FROM devices") == [(0,)]

    await stack.admin("PATCH", "/fleets/acme", json={"mqtt_broker_id": own})
    async with asyncio.timeout(5):
        while (response := await stack.register("one", key=key)).status_code != 201:
            await asyncio.sleep(0.01)
    assert response.json()["mqtt"]["source"] == "fleet"
    # A pin outside the fleet's brokers does not count.
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": stack.default_broker_id})
    assert (await resolved(stack, "one")).broker.id == own


async def test_many_at_once_by_uuid_and_by_facts(stack: Stack) -> None:
    broker_id = await stack.create_broker("Pinned")
    await stack.register("one")
    request = pb.ResolveBrokersRequest(
        subjects=[
            pb.Subject(device_uuid="one"),
            pb.Subject(device_uuid="nobody"),
            pb.Subject(device_uuid="not a uuid"),
            pb.Subject(placement=pb.Placement(broker_id=broker_id)),
            pb.Subject(placement=pb.Placement(fleet_id="demo")),
            pb.Subject(placement=pb.Placement(fleet_id="no-such-fleet")),
            pb.Subject(placement=pb.Placement(broker_id=999)),
            pb.Subject(),
        ]
    )
    response = await stack.broker.resolution("ResolveBrokers", request)
    outcomes = response.outcomes
    assert [outcome.resolution.source for outcome in outcomes[:2]] == [pb.SOURCE_DEFAULT] * 2
    assert [outcome.resolution.known for outcome in outcomes[:2]] == [True, False]
    assert outcomes[2].error.reason == "INVALID_INPUT"
    assert outcomes[3].resolution.broker_id == broker_id
    assert outcomes[4].resolution.source == pb.SOURCE_DEFAULT
    assert [outcome.error.reason for outcome in outcomes[5:]] == [
        "PLACEMENT_UNKNOWN",
        "PLACEMENT_UNKNOWN",
        "INVALID_INPUT",
    ]
    assert {broker.id for broker in response.brokers} == {stack.default_broker_id, broker_id}


async def test_too_many_at_once_are_refused(stack: Stack) -> None:
    request = pb.ResolveBrokersRequest(subjects=[pb.Subject(device_uuid="a")] * 10_001)
    with pytest.raises(InvalidInput):
        await stack.broker.resolution("ResolveBrokers", request)


async def test_an_operators_sql_on_brokers_is_in_the_next_answers(
    stack: Stack,
) -> None:
    stack.database.execute(
        "UPDATE mqtt_broker_config SET host = 'moved.example.com'", role="mooring_operator"
    )
    async with asyncio.timeout(5):
        while (await resolved(stack, "one")).broker.host != "moved.example.com":
            await asyncio.sleep(0.01)


async def test_a_change_through_the_api_is_in_answers_at_once(stack: Stack) -> None:
    for n in range(5):
        fields = brokers_pb2.BrokerFields(port=1_000 + n)
        request = brokers_pb2.UpdateBrokerRequest(id=stack.default_broker_id, fields=fields)
        request.update_mask.paths.append("port")
        await stack.broker.brokers("UpdateBroker", request)
        assert (await resolved(stack, "one")).broker.port == 1_000 + n
