"""Operators restrict and revoke keys and name devices, while devices of the fleet register."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import psycopg

from tests.integration.registry_service.provisioning.test_batches import (
    counted,
    reasons,
    register,
    registration,
)
from tests.stack import Peer, Stack

LOCK_TIMEOUT_S = 10


async def waiting(stack: Stack, sessions: int) -> None:
    """Returns when `sessions` sessions wait for a lock."""
    query = (
        "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND datname = current_database()"
    )
    async with asyncio.timeout(LOCK_TIMEOUT_S):
        while stack.database.execute(query) != [(sessions,)]:
            await asyncio.sleep(0.01)


async def key_of(stack: Stack, **fields: Any) -> tuple[str, str]:
    """The id of a new key, and the key."""
    made = await stack.admin("POST", "/provisioning-keys", json={"fleet_id": "demo", **fields})
    return made.json()["id"], made.json()["key"]


def owned(stack: Stack) -> psycopg.Connection[Any]:
    return psycopg.connect(stack.database.url("mooring"))


@contextlib.asynccontextmanager
async def storm(stack: Stack, key: str) -> AsyncIterator[list[str]]:
    """During the block, new devices register with the key at two registries.

    Yields the list of reasons for which devices were refused.
    """
    registries = [stack.registry, await stack.another_registry()]
    numbers, refused = count(), list[str]()
    is_over = asyncio.Event()

    async def come(registry: Peer) -> None:
        while not is_over.is_set():
            uuids = [f"bad-{next(numbers)}" for _ in range(8)]
            outcomes = await register(registry, *(registration(uuid, key) for uuid in uuids))
            refused.extend(reason for reason in reasons(outcomes) if reason != "created")

    tasks = [asyncio.create_task(come(registry)) for registry in registries * 3]
    try:
        yield refused
    finally:
        is_over.set()
        await asyncio.gather(*tasks)


def made_by_storm(stack: Stack) -> int:
    query = "SELECT count(*) FROM devices WHERE starts_with(uuid, 'bad-')"
    return int(stack.database.execute(query)[0][0])


async def until(condition: Any) -> None:
    async with asyncio.timeout(LOCK_TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_restriction_holds_during_many_registrations(stack: Stack) -> None:
    key_id, key = await key_of(stack)
    async with storm(stack, key) as refused:
        for _ in range(5):
            seen = made_by_storm(stack)
            await until(lambda: made_by_storm(stack) > seen + 100)  # noqa: B023
            path = f"/provisioning-keys/{key_id}"
            await stack.admin("PATCH", path, json={"uuid_prefix": "good-"})
            acknowledged, before = made_by_storm(stack), len(refused)
            await until(lambda: len(refused) > before + 50)  # noqa: B023
            assert made_by_storm(stack) == acknowledged
            await stack.admin("PATCH", path, json={"uuid_prefix": None})
    assert set(refused) == {"UUID_NOT_ALLOWED"}
    devices, total = counted(stack)
    assert devices == total


async def test_a_guess_that_waits_for_the_key_uses_its_new_values(stack: Stack) -> None:
    _, key = await key_of(stack)
    await stack.register("first", key=key)
    with owned(stack) as connection:
        connection.execute("UPDATE provisioning_keys SET allowed_device_types = '{sensor}'")
        late = asyncio.create_task(stack.register("second", key=key))
        await waiting(stack, 1)
        connection.commit()
    refused = await late
    assert (refused.status_code, refused.json()["reason"]) == (403, "DEVICE_TYPE_NOT_ALLOWED")
    assert stack.database.execute("SELECT uuid FROM devices") == [("first",)]


async def test_a_renewal_that_waits_for_the_key_uses_its_new_values(stack: Stack) -> None:
    _, key = await key_of(stack)
    for _ in range(2):
        await stack.register("d", key=key)  # the device is known, so nothing is guessed
    await stack.admin("PATCH", "/devices/d", json={"reprovisioning_allowed": True})
    with owned(stack) as connection:
        connection.execute("UPDATE provisioning_keys SET uuid_prefix = 'e'")
        late = asyncio.create_task(stack.register("d", key=key, deviceApiKey="another-key"))
        await waiting(stack, 1)
        connection.commit()
    refused = await late
    assert (refused.status_code, refused.json()["reason"]) == (403, "UUID_NOT_ALLOWED")
    allowed = stack.database.execute("SELECT reprovisioning_allowed FROM devices")
    assert allowed == [(True,)]


async def test_a_registration_while_the_uuid_is_being_reserved_is_refused(stack: Stack) -> None:
    await stack.create_fleet("other")
    await stack.register("first")
    with psycopg.connect(stack.database.url("mooring_registry")) as connection:
        connection.execute("LOCK TABLE expected_devices IN SHARE ROW EXCLUSIVE MODE")
        connection.execute("INSERT INTO expected_devices (uuid, fleet_id) VALUES ('d', 'other')")
        late = asyncio.create_task(stack.register("d"))
        await waiting(stack, 1)
        connection.commit()
    refused = await late
    assert (refused.status_code, refused.json()["reason"]) == (403, "UUID_RESERVED")


async def test_a_uuid_that_is_being_registered_cannot_be_reserved(stack: Stack) -> None:
    await stack.create_fleet("other")
    await stack.register("first")
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM provisioning_keys FOR UPDATE")
        registering = asyncio.create_task(stack.register("d"))
        await waiting(stack, 1)
        named = {"uuid": "d", "fleet_id": "other"}
        naming = asyncio.create_task(stack.admin("POST", "/expected-devices", json=named))
        await waiting(stack, 2)
        connection.commit()
    assert (await registering).status_code == 201
    refused = await naming
    assert (refused.status_code, refused.json()["reason"]) == (409, "DEVICE_REGISTERED")
    assert stack.database.execute("SELECT 1 FROM expected_devices") == []


async def test_a_uuid_is_registered_or_reserved_and_never_both(stack: Stack) -> None:
    await stack.create_fleet("other")
    outcomes = set()
    for n in range(60):
        named = {"uuid": f"d{n}", "fleet_id": "other"}
        asked = [stack.register(f"d{n}"), stack.admin("POST", "/expected-devices", json=named)]
        if n % 2:
            asked.reverse()
        one, other = await asyncio.gather(*asked)
        registering, naming = (other, one) if n % 2 else (one, other)
        outcomes.add((registering.status_code, naming.status_code))
    assert outcomes <= {(201, 409), (403, 201)}
    both = "SELECT 1 FROM devices JOIN expected_devices USING (uuid)"
    assert stack.database.execute(both) == []


async def test_a_device_named_by_several_operators_at_once_is_created_once(stack: Stack) -> None:
    for n in range(20):
        items = [{"uuid": f"d{n}-{m}", "fleet_id": "demo"} for m in range(20)]
        answers = await asyncio.gather(
            *(
                stack.admin("POST", "/expected-devices/batch", json=items[:: 1 if m else -1])
                for m in range(3)
            )
        )
        assert sorted(answer.json()["created"] for answer in answers) == [0, 0, 20]


async def test_no_device_registers_by_a_deleted_expectation(stack: Stack) -> None:
    _, key = await key_of(stack, only_expected=True)
    named = [{"uuid": f"d{n}", "fleet_id": "demo"} for n in range(40)]
    await stack.admin("POST", "/expected-devices/batch", json=named)

    async def delete(uuid: str) -> None:
        assert (await stack.admin("DELETE", f"/expected-devices/{uuid}")).status_code == 204
        present = "SELECT 1 FROM devices WHERE uuid = %s"
        before = stack.database.execute(present, uuid)
        late = await stack.register(uuid, key=key)
        assert late.status_code == (200 if before else 403)

    for item in named:
        uuid = item["uuid"]
        first, _ = await asyncio.gather(stack.register(uuid, key=key), delete(uuid))
        assert first.status_code in (201, 200, 403)


async def test_a_revocation_during_many_registrations_leaves_no_device_active(stack: Stack) -> None:
    key_id, key = await key_of(stack)
    async with storm(stack, key) as refused:
        await until(lambda: made_by_storm(stack) > 200)
        path = f"/provisioning-keys/{key_id}/revoke"
        done = await stack.admin("POST", path, json={"devices": "deactivate"})
        await until(lambda: len(refused) > 50)
    assert done.json() == {"devices_deactivated": made_by_storm(stack), "is_complete": True}
    assert stack.database.execute("SELECT 1 FROM devices WHERE is_active") == []
    assert set(refused) == {"PROVISIONING_KEY_REVOKED"}
