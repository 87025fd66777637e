"""The state of a managed broker, as the API shows it."""

import asyncio
from typing import Any

from tests.integration.gateway.test_gateway_http import assert_problem
from tests.integration.registry_service.admission.reconciler.test_reconciler import (
    PATIENCE_S,
    reconciling,
    state_of,
)
from tests.stack import Stack

NEVER: dict[str, Any] = {
    "count": 0,
    "median_s": None,
    "slowest_s": None,
    "last_at": None,
    "last_s": None,
}
# No server listens there, and the reconciler connects only when there is something to do.
MANAGED = {
    "management": "rabbitmq",
    "management_url": "http://127.0.0.1:1",
    "username": "u",
    "password": "p",
}


def revoked(stack: Stack, broker_id: int, took: str, at: str, count: int = 1) -> None:
    """Revocations that took effect after `took`; the first is of `at`, then one each second."""
    stack.database.execute(
        "INSERT INTO revocations (username, device_uuid, broker_id, reason, asked_at, done_at)"
        " SELECT 'u', '', %s, 'disabled', moment, moment + CAST(%s AS interval)"
        " FROM generate_series(CAST(%s AS timestamptz),"
        " CAST(%s AS timestamptz) + (%s - 1) * interval '1 second', interval '1 second') AS moment",
        *(broker_id, took, at, at, count),
    )


async def test_a_broker_that_is_not_managed_was_never_checked(stack: Stack) -> None:
    broker_id = stack.default_broker_id
    expected = {
        "broker_id": broker_id,
        "name": "Local Broker",
        "management": "",
        "looked_at": None,
        "in_step_at": None,
        "clients": None,
        "problem": None,
        "pending_revocations": 0,
        "revocations": NEVER,
    }
    assert await state_of(stack, broker_id) == expected
    # What was found while it was managed is not shown any more either.
    stack.database.execute(
        "INSERT INTO driven_brokers VALUES (%s, now(), 7, now(), 'on fire')", broker_id
    )
    assert await state_of(stack, broker_id) == expected
    for missing in (0x7FFFFFFF, 99):
        answer = await stack.admin("GET", f"/brokers/{missing}/enforcement")
        assert_problem(answer, 404, "BROKER_NOT_FOUND")


async def test_a_managed_broker_without_a_process_that_manages_it(stack: Stack) -> None:
    path = f"/brokers/{stack.default_broker_id}"
    assert (await stack.admin("PATCH", path, json=MANAGED)).status_code == 200
    state = await state_of(stack)
    assert (state["management"], state["looked_at"]) == ("rabbitmq", None)
    assert "no process manages brokers now" in state["problem"]
    async with reconciling(stack):
        async with asyncio.timeout(PATIENCE_S):
            while (state := await state_of(stack))["looked_at"] is None:
                await asyncio.sleep(0.02)
        assert state["problem"] is None
        assert state["in_step_at"] == state["looked_at"]
        other_id = await stack.create_broker("Other", host="other.example.com")
        await stack.admin("POST", f"/brokers/{other_id}/default")
        assert (await stack.admin("PATCH", path, json={"is_active": False})).status_code == 200
        state = await state_of(stack)
        assert state["problem"] == "the broker is not active, so Mooring does not manage it"
    await stack.admin("PATCH", path, json={"is_active": True})
    # The process has released its lease.
    state = await state_of(stack)
    assert "no process manages brokers now" in state["problem"]
    assert state["looked_at"] is not None


async def test_the_times_of_revocations_are_those_measured(stack: Stack) -> None:
    broker_id = stack.default_broker_id
    other_id = await stack.create_broker("Other")
    revoked(stack, other_id, "9 s", "2026-01-01")
    # This one is too old to be among the last thousand.
    revoked(stack, broker_id, "8 s", "2026-01-01")
    revoked(stack, broker_id, "0.2 s", "2026-02-01", 600)
    revoked(stack, broker_id, "0.4 s", "2026-02-02", 399)
    revoked(stack, broker_id, "1.5 s", "2026-02-03T10:00:00+00:00")
    stack.database.execute(
        "INSERT INTO revocations (username, device_uuid, broker_id, reason)"
        " SELECT 'u', '', %s, 'deleted' FROM generate_series(1, 3)",
        broker_id,
    )
    state = await state_of(stack, broker_id)
    assert state["pending_revocations"] == 3
    assert state["revocations"] == {
        "count": 1000,
        "median_s": 0.2,
        "slowest_s": 1.5,
        "last_at": "2026-02-03T10:00:00Z",
        "last_s": 1.5,
    }
    state = await state_of(stack, other_id)
    assert (state["pending_revocations"], state["revocations"]["count"]) == (0, 1)
