"""A commit with an unknown outcome, because the connection was lost while it was under way."""

import asyncio

import pytest
from mooring.registry.v1 import registration_pb2 as pb

from tests.integration.registry_service.provisioning.test_batches import (
    counted,
    reasons,
    register,
    registration,
)
from tests.proxy import Cut, proxied
from tests.stack import Stack


@pytest.mark.parametrize("cut", list(Cut))
async def test_acknowledged_devices_are_stored_exactly_once(stack: Stack, cut: Cut) -> None:
    key = await stack.create_key(max_devices=30)
    async with proxied(stack.database.url("mooring_registry")) as (proxy, url):
        registry = await stack.another_registry(database_url=url)
        proxy.cuts = [cut, cut]
        outcomes = await register(registry, *(registration(f"d{n}", key) for n in range(20)))
        # A commit that took effect is recognised, and not tried again.
        assert proxy.made == (1 if cut is Cut.AFTER else 2)
        assert reasons(outcomes) == ["created"] * 20
        # The devices count as made by this call, however many attempts it took.
        assert all(outcome.device.created for outcome in outcomes)
        assert counted(stack) == (20, 20)

        again = await register(registry, *(registration(f"d{n}", key) for n in range(20)))
        passwords = [outcome.device.connection.password for outcome in outcomes]
        assert [outcome.device.connection.password for outcome in again] == passwords
        assert counted(stack) == (20, 20)


async def test_many_callers_with_many_lost_connections(stack: Stack) -> None:
    key = await stack.create_key(max_devices=60)
    async with proxied(stack.database.url("mooring_registry")) as (proxy, url):
        registry = await stack.another_registry(database_url=url)
        acknowledged: dict[str, int] = {}

        async def device(uuid: str) -> None:
            for _ in range(20):
                outcome: pb.RegistrationOutcome
                (outcome,) = await register(registry, registration(uuid, key))
                if outcome.HasField("device"):
                    acknowledged[uuid] = outcome.device.id
                    return
                assert outcome.error.reason == "DATABASE_UNAVAILABLE"

        proxy.cuts = [Cut.AFTER, Cut.BEFORE] * 10
        await asyncio.gather(*(device(f"d{n}") for n in range(60)))
        assert len(acknowledged) == 60
        rows = stack.database.execute("SELECT uuid, id FROM devices")
        assert dict(rows) == acknowledged
        assert counted(stack) == (60, 60)
