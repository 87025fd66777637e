"""A new broker means a new password; another broker of the same set, or a stopgap, does not."""

import asyncio
from typing import Any

import pytest

from registry_service.credentials import hash_of_password
from tests.integration.registry_service.administration.test_credential_rotation import (
    accepted,
    password,
    rotate,
    rotated,
)
from tests.integration.registry_service.provisioning.test_batches import register, registration
from tests.integration.registry_service.provisioning.test_fallback import caught_up, change_brokers
from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.stack import Stack

WRITTEN = "SELECT uuid, xmin::text FROM devices ORDER BY uuid"
SETS = (
    "SELECT told_broker_ids, coalesce(salt_broker_ids, told_broker_ids)"
    " FROM devices WHERE uuid = 'd'"
)


async def pin(stack: Stack, broker_id: int | None) -> None:
    answer = await stack.admin("PUT", "/devices/d", json={"mqtt_broker_id": broker_id})
    assert answer.status_code == 200, answer.text


async def registered(stack: Stack, uuid: str = "d") -> dict[str, Any]:
    mqtt: dict[str, Any] = (await stack.register(uuid)).json()["mqtt"]
    return mqtt


@pytest.mark.parametrize("way", ["connection", "register", "rotate"])
async def test_another_broker_means_another_password_by_every_request(
    stack: Stack, way: str
) -> None:
    first = await registered(stack)
    other = await stack.create_broker("Other")
    await pin(stack, other)
    if way == "connection":
        second = (await stack.connection("d")).json()
    elif way == "register":
        second = await registered(stack)
    else:
        second = (await rotate(stack)).json()
    assert second["password"] != first["password"]
    assert second["generation"] != first["generation"]
    assert accepted(stack, second["password"]) == "current"
    assert accepted(stack, first["password"]) == "previous"
    assert stack.database.execute(SETS) == [([other], [other])]
    # Asking again changes nothing.
    assert (await stack.connection("d")).json() == second == await registered(stack)
    lines = stack.database.execute(
        "SELECT count(*) FROM audit_log WHERE action = 'device.rotate_credentials'"
    )
    assert lines == [(1 if way == "rotate" else 0,)]
    # In the views, the device has only the new password and the new broker.
    assert stack.database.execute("SELECT broker_ids, password_hash FROM mqtt_users") == [
        ([other], stack.database.execute("SELECT mqtt_password_hash FROM devices")[0][0])
    ]


async def test_moving_back_means_another_password_too(stack: Stack) -> None:
    seen = {(await registered(stack))["password"]}
    other = await stack.create_broker("Other")
    for n, broker_id in enumerate((other, None, other, None), start=2):
        await pin(stack, broker_id)
        seen.add(await password(stack))
        assert len(seen) == n


async def test_another_default_writes_nothing_until_a_device_asks(stack: Stack) -> None:
    uuids = [f"d{n}" for n in range(5)]
    before = {uuid: (await registered(stack, uuid))["password"] for uuid in uuids}
    written = stack.database.execute(WRITTEN)
    other = await stack.create_broker("Other")
    assert (await stack.admin("POST", f"/brokers/{other}/default")).status_code < 300
    assert stack.database.execute(WRITTEN) == written
    answers = await asyncio.gather(*(stack.register(uuid) for uuid in uuids[:3]))
    after = {answer.json()["uuid"]: answer.json()["mqtt"]["password"] for answer in answers}
    assert not after.items() & before.items()
    now = stack.database.execute(WRITTEN)
    assert now[3:] == written[3:]
    # Registering again writes nothing if the broker has not changed.
    await asyncio.gather(*(stack.register(uuid) for uuid in uuids[:3]))
    assert stack.database.execute(WRITTEN) == now


@pytest.mark.parametrize("way", ["fleet", "rollout", "move", "new default"])
async def test_a_device_gets_one_new_password_for_every_kind_of_move(
    stack: Stack, way: str
) -> None:
    other, last = await stack.create_broker("Other"), await stack.create_broker("Last")
    if way in ("move", "rollout"):
        await stack.admin("PATCH", "/fleets/demo", json={"mqtt_broker_id": other})
    first = await registered(stack)
    if way == "fleet":
        moved = await stack.admin("PATCH", "/fleets/demo", json={"mqtt_broker_id": last})
    elif way == "rollout":
        body = {"broker_id": last, "percent": 100}
        moved = await stack.admin("PUT", "/fleets/demo/rollout", json=body)
    elif way == "move":
        body = {"to_broker_id": last}
        moved = await stack.admin("POST", f"/brokers/{other}/move", json=body)
    else:
        moved = await stack.admin("POST", f"/brokers/{last}/default")
    assert moved.status_code < 300, moved.text
    assert accepted(stack, first["password"]) == "current"
    second = (await stack.connection("d")).json()
    assert stack.database.execute(SETS) == [([last], [last])]
    assert second["password"] != first["password"]
    if way == "rollout":
        # Completing the rollout changes the source, but not the broker.
        done = await stack.admin("POST", "/fleets/demo/rollout/complete")
        assert done.status_code < 300, done.text
    assert (await stack.connection("d")).json()["password"] == second["password"]


async def test_failing_over_within_the_set_keeps_the_password(stack: Stack) -> None:
    first = await registered(stack)
    other = await stack.create_broker("Other")
    # As if it had been notified of both: a primary broker and its fallback.
    stack.database.execute("UPDATE devices SET salt_broker_ids = told_broker_ids || %s", other)
    for broker_id in (other, None, other):
        await pin(stack, broker_id)
        answered = (await stack.connection("d")).json()
        assert answered["password"] == first["password"]
    assert (await registered(stack))["password"] == first["password"]
    assert stack.database.execute(SETS) == [([other], [stack.default_broker_id, other])]


async def test_a_row_of_an_earlier_release_has_a_salt_for_its_notified_brokers(
    stack: Stack,
) -> None:
    first = await registered(stack)
    assert stack.database.execute("SELECT salt_broker_ids FROM devices") == [(None,)]
    # The stored source changes, but not the broker.
    stack.database.execute("UPDATE devices SET told_source = ''")
    assert (await registered(stack))["password"] == first["password"] == await password(stack)
    assert stack.database.execute(SETS) == [([stack.default_broker_id],) * 2]
    await pin(stack, await stack.create_broker("Other"))
    assert await password(stack) != first["password"]


async def test_a_stopgap_changes_no_password_and_the_resolution_after_it_does(
    stack: Stack,
) -> None:
    first = await registered(stack)
    other = await stack.create_broker("Other", port=2222)
    await stack.register("neighbour")
    await stack.admin("PUT", "/devices/neighbour", json={"mqtt_broker_id": other})
    await stack.connection("neighbour")
    await caught_up(stack)
    await stack.stop_broker_service()
    change_brokers(stack)
    # The registry remembers that this pin led to the other broker.
    await pin(stack, other)
    stopgap = (await stack.connection("d")).json()
    assert (stopgap["stale"], stopgap["brokerConfig"]["port"]) == (True, 2222)
    assert stopgap["password"] == first["password"] == (await registered(stack))["password"]
    assert stack.database.execute(SETS) == [([other], [stack.default_broker_id])]
    await stack.start_broker_service()
    async with asyncio.timeout(10):
        while "stale" in (decided := (await stack.connection("d")).json()):
            await asyncio.sleep(0.05)
    assert decided["password"] != first["password"]
    assert stack.database.execute(SETS) == [([other], [other])]


async def test_the_environment_changes_no_password_and_the_first_broker_does(
    stack: Stack,
) -> None:
    first = await registered(stack)
    stack.database.execute("UPDATE mqtt_broker_config SET is_default = false")
    await caught_up(stack)
    answered = (await stack.connection("d")).json()
    assert (answered["source"], answered["password"]) == ("environment", first["password"])
    new = await registered(stack, "new")
    assert (new["source"], await password(stack, "new")) == ("environment", new["password"])
    stack.database.execute("UPDATE mqtt_broker_config SET is_default = true")
    await caught_up(stack)
    # The password of "d" was made for this broker; that of "new" was made for another set.
    assert await password(stack) == first["password"]
    assert await password(stack, "new") != new["password"]


async def test_registries_give_the_same_password_to_concurrent_requests(stack: Stack) -> None:
    first = await registered(stack)
    await pin(stack, await stack.create_broker("Other"))
    second = await stack.another_registry()
    again = registration("d", stack.provisioning_key, device_api_key="test-api-key")
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")
        # Each registry gets a batch with the device twice, and one connection is asked for.
        tasks = [
            asyncio.create_task(register(registry, again, again))
            for registry in (stack.registry, second)
        ]
        asking = asyncio.create_task(stack.connection("d"))
        await waiting(stack, 3)
        connection.commit()
    passwords = [
        outcome.device.connection.password
        for outcomes in await asyncio.gather(*tasks)
        for outcome in outcomes
    ]
    passwords.append((await asking).json()["password"])
    assert set(passwords) == {await password(stack)}
    assert (accepted(stack, passwords[0]), accepted(stack, first["password"])) == (
        "current",
        "previous",
    )


async def test_rotating_while_moving_gives_one_new_password(
    stack: Stack,
) -> None:
    first = await registered(stack)
    other = await stack.create_broker("Other")
    second = await stack.another_registry()
    await pin(stack, other)
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")
        rotating = asyncio.create_task(rotated(second, "d"))
        asking = asyncio.create_task(stack.connection("d"))
        await waiting(stack, 2)
        connection.commit()
    [by_rotating], by_asking = await rotating, (await asking).json()["password"]
    current = await password(stack)
    assert by_rotating == by_asking == current
    assert accepted(stack, first["password"]) == "previous"
    # After another rotation, the set is still that of the broker.
    [third] = await rotated(second, "d")
    assert third == await password(stack) != current
    assert stack.database.execute(SETS) == [([other], [other])]


async def test_a_revoked_password_is_replaced_for_the_brokers_of_the_answer(
    stack: Stack,
) -> None:
    await registered(stack)
    await stack.admin("POST", "/devices/d/credentials/revoke")
    other = await stack.create_broker("Other")
    await pin(stack, other)
    answered = await password(stack)
    assert answered == await password(stack)
    assert stack.database.execute(SETS) == [([other], [other])]
    salt, kept = stack.database.execute("SELECT credential_salt, mqtt_password_hash FROM devices")[
        0
    ]
    assert hash_of_password(salt, answered) == kept
    await stack.admin("PATCH", "/devices/d", json={"reprovisioning_allowed": True})
    await pin(stack, None)
    anew = await stack.register("d", deviceApiKey="another-key")
    assert stack.database.execute(SETS) == [([stack.default_broker_id],) * 2]
    assert anew.json()["mqtt"]["password"] == await password_by(stack, "another-key")


async def password_by(stack: Stack, api_key: str) -> str:
    return str((await stack.connection("d", api_key)).json()["password"])
