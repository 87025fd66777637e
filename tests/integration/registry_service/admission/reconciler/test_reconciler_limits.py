"""A Mosquitto that cannot be in step: which clients are kept, and how often it is checked."""

import asyncio
from typing import Any

import pytest

from registry_service.admission.reconciler.dynamic_security import Actual
from registry_service.admission.reconciler.mosquitto_client import DynamicSecurity
from tests.dynamic_security import DynamicMosquitto, by_hand
from tests.integration.registry_service.administration.test_credential_rotation import rotate
from tests.integration.registry_service.admission.reconciler.test_reconciler import (
    PATIENCE_S,
    broker,
    is_let_in,
    login,
    managed,
    problem_of,
    reconciling,
    until_let_in,
    until_said,
)
from tests.stack import Stack

__all__ = ["broker"]

LIMIT = 5


async def rounds(stack: Stack, count: int) -> None:
    """Returns when the holder of the lease has renewed it `count` times."""
    seen: set[Any] = set()
    async with asyncio.timeout(PATIENCE_S):
        while len(seen) <= count:
            seen |= set(stack.database.execute("SELECT expires_at FROM leases"))
            await asyncio.sleep(0.02)


async def moved(stack: Stack, uuid: str, broker_id: int) -> tuple[str, str]:
    """Moves a device, and returns the login of its answer."""
    await stack.admin("PUT", f"/devices/{uuid}", json={"mqtt_broker_id": broker_id})
    answer = await stack.connection(uuid)
    assert answer.status_code == 200, answer.text
    return answer.json()["username"], answer.json()["password"]


async def until_no_problem(stack: Stack) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await problem_of(stack):
            await asyncio.sleep(0.02)


async def test_with_too_many_devices_those_already_there_are_kept_in_step(
    stack: Stack, broker: DynamicMosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("planning", "broker_reconciler"):
        monkeypatch.setattr(f"registry_service.admission.reconciler.{module}.MAX_CLIENTS", LIMIT)
    await managed(stack, broker)
    other_id = await stack.create_broker("Other", host="other.example.com")
    for uuid in (f"e{n}" for n in range(LIMIT)):
        await login(stack, uuid)
        await moved(stack, uuid, other_id)
    late = {f"l{n}": await login(stack, f"l{n}") for n in range(LIMIT)}
    async with reconciling(stack):
        for one in late.values():
            await until_let_in(broker, one, is_in=True)
        early = {
            f"e{n}": await moved(stack, f"e{n}", stack.default_broker_id) for n in range(LIMIT)
        }
        await until_said(stack, f"more than the {LIMIT}")
        for one in late.values():
            assert await is_let_in(broker, one)
        for one in early.values():
            assert not await is_let_in(broker, one)
        # This device is the last one, so it is not among the first `LIMIT` devices.
        answer = await rotate(stack, "l4")
        assert answer.status_code == 200, answer.text
        anew = answer.json()["username"], answer.json()["password"]
        await until_let_in(broker, anew, is_in=True)
        assert not await is_let_in(broker, late["l4"])
        await stack.admin("PATCH", "/devices/l0", json={"is_active": False})
        await until_let_in(broker, late["l0"], is_in=False)
        # Moving one device away is not taken for lost data.
        await moved(stack, "l1", other_id)
        await until_let_in(broker, late["l1"], is_in=False)
        assert f"more than the {LIMIT}" in await problem_of(stack)
        # As soon as there is room, the others are created.
        for uuid in ("e0", "e1", "e2"):
            await moved(stack, uuid, other_id)
        await until_let_in(broker, early["e4"], is_in=True)
        await until_no_problem(stack)
        for one in (late["l2"], late["l3"], anew):
            assert await is_let_in(broker, one)


async def test_a_client_whose_row_names_the_broker_is_not_removed(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    logins = [await login(stack, f"d{n}") for n in range(12)]
    # A device that was disabled once, and is enabled again, is not removed either.
    for is_active in (False, True):
        await stack.admin("PATCH", "/devices/d0", json={"is_active": is_active})
    async with reconciling(stack, drift_check_s=0.5):
        for one in logins:
            await until_let_in(broker, one, is_in=True)
        # As if the counts, by which devices are found, were wrong.
        stack.database.execute("TRUNCATE device_counts, device_count_changes")
        await until_said(stack, "12 of 12 clients would be removed at once")
        for one in logins:
            assert await is_let_in(broker, one)


async def test_a_lasting_problem_does_not_cause_constant_checks(
    stack: Stack, broker: DynamicMosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = DynamicSecurity.state

    async def counted(self: DynamicSecurity) -> Actual:
        nonlocal looks
        looks += 1
        return await look(self)

    monkeypatch.setattr(DynamicSecurity, "state", counted)
    await managed(stack, broker)
    await by_hand(broker, ("createClient", {"username": "device_one", "password": "theirs"}))
    await login(stack, "one")
    async with reconciling(stack):
        await until_said(stack, "are not ours")
        await rounds(stack, 2)
        before = looks
        await rounds(stack, 5)
        assert looks == before
        assert "are not ours" in await problem_of(stack)
        # New work is still done at once.
        two = await login(stack, "two")
        await until_let_in(broker, two, is_in=True)
        assert "are not ours" in await problem_of(stack)
        await stack.admin("PATCH", "/devices/two", json={"is_active": False})
        await until_let_in(broker, two, is_in=False)
        await stack.admin("PATCH", "/devices/one", json={"is_active": False})
        await until_no_problem(stack)
    # If the problem ends at the broker, the next full comparison finds it out.
    await stack.admin("PATCH", "/devices/one", json={"is_active": True})
    async with reconciling(stack, drift_check_s=0.5):
        await until_said(stack, "are not ours")
        await by_hand(broker, ("deleteClient", {"username": "device_one"}))
        await until_no_problem(stack)
