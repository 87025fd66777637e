"""Counts and events when a registry is killed: only what was not written yet is lost."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from mooring.registry.v1 import registration_pb2 as pb

from tests.chaos.replicas import running, two_of
from tests.stack import PATIENCE_S, Database, Peer, prepared, seed

POLL_S = 0.05
COUNTED = """
SELECT coalesce(sum(new_devices), 0)::int, coalesce(sum(refused), 0)::int
FROM registration_counts WHERE step = '{step}' AND fleet_id = '{fleet_id}'
"""


async def register(peer: Peer, key: str, first: int, count: int) -> None:
    registrations = [
        pb.Registration(
            provisioning_key=key,
            uuid=f"device-{n}",
            device_name="d",
            device_type="t",
            device_api_key="test-api-key",
        )
        for n in range(first, first + count)
    ]
    request = pb.RegisterDevicesRequest(registrations=registrations)
    answer = await peer.registration("RegisterDevices", request)
    assert all(outcome.device.created for outcome in answer.outcomes)


async def refuse(peer: Peer, uuid: str) -> None:
    request = pb.ConnectionRequest(
        uuid=uuid, device_api_key="wrong-api-key", source_address="192.0.2.1"
    )
    await peer.registration("GetConnections", pb.GetConnectionsRequest(requests=[request]))


@pytest.mark.heavy
async def test_a_killed_registry_loses_only_what_it_has_not_written(
    database: Database, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as exits:
        stack = prepared(database, tmp_path, exits)
        exits.push_async_callback(stack.stop_broker_service)
        await stack.start_broker_service()
        stack.broker = await stack.peer(stack.broker_port)
        killed, stopped = two_of("registry_service", stack.registry_config, tmp_path)
        await exits.enter_async_context(running(killed, stopped))
        one, other = (stack.peer_at(replica.address) for replica in (killed, stopped))
        for peer in (one, other):
            exits.push_async_callback(peer.close)
        stack.registry = other
        await seed(stack)
        key = stack.provisioning_key

        def counted(step: str, fleet_id: str) -> tuple[int, int]:
            [found] = database.execute(COUNTED.format(step=step, fleet_id=fleet_id))
            return int(found[0]), int(found[1])

        await register(one, key, 0, 5)
        await refuse(one, "device-0")
        async with asyncio.timeout(PATIENCE_S):
            while counted("hour", "") != (5, 1):
                await asyncio.sleep(POLL_S)
            while database.execute("SELECT sum(count)::int FROM device_events") != [(1,)]:
                await asyncio.sleep(POLL_S)
        await register(one, key, 5, 3)
        await refuse(one, "device-0")
        await killed.kill()
        await register(other, key, 8, 4)
        await refuse(other, "device-0")
        # It writes what is left.
        await stopped.stop()
    assert database.execute("SELECT count(*)::int FROM devices") == [(12,)]
    for step in ("minute", "hour", "day"):
        for fleet_id in ("", "demo"):
            new_devices, refused = counted(step, fleet_id)
            assert new_devices in (9, 12), (step, fleet_id)
            assert refused in (2, 3), (step, fleet_id)
    [(events,)] = database.execute("SELECT sum(count)::int FROM device_events")
    assert events in (2, 3)
