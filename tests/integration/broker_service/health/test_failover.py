"""Devices that use only the documented JSON move to another broker and come back: three real
brokers in a pool, probed by the real worker.
"""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

from tests.integration.broker_service.health.probed import Broker
from tests.integration.broker_service.health.test_worker import created, state_of, until, worker
from tests.stack import Stack

DEVICES = [f"device-{number}" for number in range(12)]


async def pooled(stack: Stack, tmp_path: Path) -> dict[int, Broker]:
    """Three brokers in the default pool, by id."""
    found = {}
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        broker = Broker(folder)
        found[await created(stack, broker)] = broker
    body = {
        "name": "all",
        "members": [{"broker_id": broker_id} for broker_id in found],
    }
    answer = await stack.admin("POST", "/pools", json=body)
    assert answer.status_code == 201, answer.text
    pool_id = answer.json()["id"]
    assert (await stack.admin("POST", f"/pools/{pool_id}/default")).status_code == 200
    return found


def choices(mqtt: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of an answer, in the order in which a device tries them."""
    return [each["brokerConfig"] for each in (mqtt, *mqtt.get("fallbackBrokers", []))]


async def reached(mqtt: dict[str, Any]) -> int:
    """The port of the first broker of the answer that a device reaches, with the CA for it."""
    for config in choices(mqtt):
        context = ssl.create_default_context(cadata=config["caCert"])
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(
                config["host"], config["port"], ssl=context, server_hostname=config["host"]
            )
            writer.close()
            return int(config["port"])
    raise AssertionError("no broker of the answer can be reached")


async def answers(stack: Stack) -> dict[str, dict[str, Any]]:
    found = {}
    for uuid in DEVICES:
        answer = await stack.connection(uuid)
        assert answer.status_code == 200, answer.text
        found[uuid] = answer.json()
    return found


async def test_devices_of_a_killed_broker_move_and_come_back(stack: Stack, tmp_path: Path) -> None:
    brokers = await pooled(stack, tmp_path)
    async with contextlib.AsyncExitStack() as stack_of_brokers:
        processes = {
            broker_id: stack_of_brokers.enter_context(broker.running())
            for broker_id, broker in brokers.items()
        }
        async with worker(stack):
            await until(lambda: all(state_of(stack, one) == ("up", "") for one in brokers))
            for uuid in DEVICES:
                assert (await stack.register(uuid)).status_code == 201
            before = await answers(stack)
            first = {uuid: await reached(mqtt) for uuid, mqtt in before.items()}
            assert all(len(choices(mqtt)) == 3 for mqtt in before.values())
            killed = next(one for one in brokers if brokers[one].port == first[DEVICES[0]])
            processes[killed].kill()
            processes[killed].wait()
            # Without asking Mooring, a device that was told its fallbacks reaches one.
            for mqtt in before.values():
                assert await reached(mqtt) != brokers[killed].port
            await until(lambda: state_of(stack, killed)[0] == "down")  # type: ignore[index]
            rows = stack.database.execute("SELECT uuid, xmin::text FROM devices ORDER BY id")
            async with asyncio.timeout(10):
                while any(
                    choices(mqtt)[0]["port"] == brokers[killed].port
                    for mqtt in (await answers(stack)).values()
                ):
                    await asyncio.sleep(0.05)
            # All others stay, and no row was written.
            for uuid, mqtt in (await answers(stack)).items():
                if first[uuid] != brokers[killed].port:
                    assert await reached(mqtt) == first[uuid]
                else:
                    assert mqtt["situation"] == "failover"
                    assert mqtt["generation"] != before[uuid]["generation"]
            query = "SELECT uuid, xmin::text FROM devices ORDER BY id"
            assert stack.database.execute(query) == rows
            with brokers[killed].running():
                await until(lambda: state_of(stack, killed)[0] == "up")  # type: ignore[index]
                stack.database.execute(
                    "UPDATE broker_states SET returning_percent = 100 WHERE broker_id = %s", killed
                )
                async with asyncio.timeout(10):
                    while {
                        uuid: choices(mqtt)[0]["port"]
                        for uuid, mqtt in (await answers(stack)).items()
                    } != first:
                        await asyncio.sleep(0.05)
    assert stack.database.execute(query) == rows
