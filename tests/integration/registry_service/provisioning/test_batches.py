"""Batches: items do not affect each other; limits; races of several registries; over gRPC."""

import asyncio
from typing import Any

import pytest
from mooring.registry.v1 import registration_pb2 as pb

from chassis.errors import InvalidInput
from tests.stack import Peer, Stack


def registration(uuid: str, key: str, **changes: Any) -> pb.Registration:
    return pb.Registration(
        **{
            "uuid": uuid,
            "provisioning_key": key,
            "device_name": uuid,
            "device_type": "test",
            "device_api_key": f"key-of-{uuid}",
            **changes,
        }
    )


async def register(peer: Peer, *registrations: pb.Registration) -> list[pb.RegistrationOutcome]:
    request = pb.RegisterDevicesRequest(registrations=registrations)
    return list((await peer.registration("RegisterDevices", request)).outcomes)


def reasons(outcomes: list[pb.RegistrationOutcome]) -> list[str]:
    return [outcome.error.reason or "created" for outcome in outcomes]


def counted(stack: Stack) -> tuple[int, int]:
    """The number of devices, and the number that the keys have counted."""
    query = (
        "SELECT (SELECT count(*) FROM devices),"
        " (SELECT sum(devices_provisioned) FROM provisioning_keys)"
    )
    devices, counted = stack.database.execute(query)[0]
    return int(devices), int(counted)


async def test_invalid_items_fail_alone_and_are_named(stack: Stack) -> None:
    key = stack.provisioning_key
    await register(stack.registry, registration("taken", key))
    outcomes = await register(
        stack.registry,
        registration("first", key),
        registration("no-key", "mpk_wrong"),
        registration("taken", key, device_api_key="another-api-key"),
        registration("too-long", key, device_name="x" * 256),
        registration("nul", key, device_name="a\0b"),
        registration("bad/uuid", key),
        registration("first", key),
        registration("first", key, device_api_key="not-the-first"),
        registration("last", key),
    )
    assert reasons(outcomes) == [
        "created",
        "PROVISIONING_KEY_UNKNOWN",
        "DEVICE_TAKEN",
        "INVALID_INPUT",
        "INVALID_INPUT",
        "INVALID_INPUT",
        "created",
        "DEVICE_TAKEN",
        "created",
    ]
    assert outcomes[6].device.id == outcomes[0].device.id
    assert (outcomes[0].device.created, outcomes[6].device.created) == (True, False)
    assert outcomes[6].device.connection == outcomes[0].device.connection
    assert [outcome.error.field for outcome in outcomes[3:6]] == [
        "device_name",
        "device_name",
        "uuid",
    ]
    assert counted(stack) == (3, 3)


async def test_an_item_that_only_the_database_refuses_fails_alone(stack: Stack) -> None:
    stack.database.execute("ALTER TABLE devices ADD CHECK (device_name <> 'poison')")
    items = [registration(f"d{n}", stack.provisioning_key) for n in range(16)]
    items[11].device_name = "poison"
    outcomes = await register(stack.registry, *items)
    assert [n for n, reason in enumerate(reasons(outcomes)) if reason != "created"] == [11]
    assert outcomes[11].error.reason == "REFUSED_VALUES"
    assert "poison" not in outcomes[11].error.message
    assert counted(stack) == (15, 15)


async def test_a_batch_that_is_too_large_is_refused(stack: Stack) -> None:
    with pytest.raises(InvalidInput):
        await register(stack.registry, *(registration(f"d{n}", "k") for n in range(1_001)))


async def test_a_broker_is_sent_once_for_all_items(stack: Stack) -> None:
    request = pb.RegisterDevicesRequest(
        registrations=[registration(f"d{n}", stack.provisioning_key) for n in range(50)]
    )
    response = await stack.registry.registration("RegisterDevices", request)
    assert [broker.id for broker in response.brokers] == [stack.default_broker_id]
    assert {outcome.device.connection.broker_id for outcome in response.outcomes} == {
        stack.default_broker_id
    }


async def test_a_limited_key_makes_exactly_its_devices_through_two_registries(
    stack: Stack,
) -> None:
    key = await stack.create_key(max_devices=100)
    registries = [stack.registry, await stack.another_registry()]
    outcomes = await asyncio.gather(
        *(register(registries[n % 2], registration(f"d{n}", key)) for n in range(500))
    )
    found = reasons([outcome for call in outcomes for outcome in call])
    assert found.count("created") == 100
    assert found.count("PROVISIONING_KEY_USED_UP") == 400
    assert counted(stack) == (100, 100)


async def test_one_uuid_many_times_at_once_is_one_identity(stack: Stack) -> None:
    registries = [stack.registry, await stack.another_registry()]
    outcomes = await asyncio.gather(
        *(
            register(registries[n % 2], registration("one", stack.provisioning_key))
            for n in range(16)
        )
    )
    devices = [outcome.device for call in outcomes for outcome in call]
    assert len({(device.id, device.connection.password) for device in devices}) == 1
    assert sum(device.created for device in devices) == 1
    assert counted(stack) == (1, 1)


async def test_a_lost_race_does_not_lose_a_place_of_the_key(
    stack: Stack,
) -> None:
    """The place that a lost race gives back is used for the next item of the batch."""
    key = await stack.create_key(max_devices=2)
    registries = [stack.registry, await stack.another_registry()]
    items = [registration("one", key), registration("two", key)]
    outcomes = await asyncio.gather(*(register(registry, *items) for registry in registries))
    assert [reason for call in outcomes for reason in reasons(call)] == ["created"] * 4
    assert counted(stack) == (2, 2)


async def test_batches_with_several_keys_do_not_deadlock(stack: Stack) -> None:
    keys = [await stack.create_key() for _ in range(4)]
    registries = [stack.registry, await stack.another_registry()]
    outcomes = await asyncio.gather(
        *(
            register(
                registries[call % 2],
                *(registration(f"c{call}-{n}", keys[(n + call) % 4]) for n in range(20)),
            )
            for call in range(20)
        )
    )
    assert all(reason == "created" for call in outcomes for reason in reasons(call))
    assert counted(stack) == (400, 400)
