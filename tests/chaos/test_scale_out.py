"""Several replicas of each service on one database, of which one is killed, stopped or frozen."""

import asyncio
import contextlib
from pathlib import Path

import httpx2
from mooring.broker.v1 import resolution_pb2

import broker_service.__main__
from chassis.errors import Unavailable
from tests.chaos.crowd import CLIENTS, Crowd
from tests.chaos.names import names
from tests.chaos.replicas import Replicas, running, target_of, two_of, two_of_each, until_ready
from tests.stack import Database, Peer, prepared
from tests.supervised import PATIENCE_S, POLL_S

# Enough answers for every client to have used each replica that is left.
MANY = 4 * CLIENTS
# How soon callers give up a replica that hangs: see chassis/client.py.
HANG_NOTICED_S = 9.0


def is_unanswered(error: httpx2.TransportError) -> bool:
    """Whether a connection was refused or closed before the first byte of an answer."""
    if isinstance(error, httpx2.RemoteProtocolError):
        return "without sending a response" in str(error)
    return isinstance(error, httpx2.NetworkError)


def crowd_at(replicas: Replicas) -> Crowd:
    urls = [f"http://{gateway.address}" for gateway in replicas.gateways]
    return Crowd(urls, replicas.stack.provisioning_key)


async def test_one_of_each_is_killed_and_nothing_is_lost(
    database: Database, tmp_path: Path
) -> None:
    async with two_of_each(database, tmp_path) as replicas:
        crowd = crowd_at(replicas)
        pairs = (replicas.registries, replicas.brokers, replicas.gateways)
        async with crowd.arriving():
            await crowd.fresh(MANY)
            for first, _ in pairs:
                await first.kill()
                await crowd.fresh(MANY)
            for first, _ in pairs:
                await first.start()
            await until_ready([first for first, _ in pairs])
            # The restarted replicas are used: no others are left.
            for _, second in pairs:
                await second.kill()
                await crowd.fresh(MANY)
        assert set(crowd.statuses) <= {200, 201, 503}
        crowd.check_nothing_is_lost(replicas.stack)


async def test_one_of_each_is_stopped_and_no_call_is_lost(
    database: Database, tmp_path: Path
) -> None:
    async with two_of_each(database, tmp_path) as replicas:
        crowd = crowd_at(replicas)
        async with crowd.arriving():
            await crowd.fresh(MANY)
            for stopping, _ in (replicas.registries, replicas.brokers):
                crowd.forget()
                await stopping.stop()
                await crowd.fresh(MANY)
                assert set(crowd.statuses) <= {200, 201}
                assert not crowd.lost
                assert not crowd.stale
            crowd.forget()
            stopped, _ = replicas.gateways
            await stopped.stop()
            await crowd.fresh(MANY)
        assert set(crowd.statuses) <= {200, 201}
        assert not crowd.stale
        # A gateway answers what it has begun, closes idle connections and accepts no new ones.
        assert {url for url, _ in crowd.lost} <= {f"http://{stopped.address}"}
        assert all(is_unanswered(error) for _, error in crowd.lost), crowd.lost
        assert len(crowd.lost) <= CLIENTS
        crowd.check_nothing_is_lost(replicas.stack)


async def test_a_replica_that_hangs_soon_gets_no_more_calls(
    database: Database, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as exits:
        stack = prepared(database, tmp_path, exits)
        brokers = two_of("broker_service", stack.broker_config, tmp_path)
        await exits.enter_async_context(running(*brokers))
        peer = stack.peer_at(target_of(brokers))
        exits.push_async_callback(peer.close)
        request = resolution_pb2.ResolveBrokerRequest(device_uuid="one")
        answered = 0
        is_over = False

        async def ask() -> None:
            nonlocal answered
            while not is_over:
                # The frozen replica does not answer the calls that it has received.
                with contextlib.suppress(Unavailable):
                    await peer.resolution("ResolveBroker", request)
                    answered += 1

        async def more(*, within_s: float) -> None:
            wanted = answered + MANY
            async with asyncio.timeout(within_s):
                while answered < wanted:
                    await asyncio.sleep(POLL_S)

        async with asyncio.TaskGroup() as askers:
            for _ in range(8):
                askers.create_task(ask())
            await more(within_s=PATIENCE_S)
            brokers[0].hang()
            # Every second call goes to the frozen replica, so soon all callers wait for it.
            await more(within_s=HANG_NOTICED_S + 2)
            is_over = True


async def test_replicas_are_found_by_name(database: Database, tmp_path: Path) -> None:
    request = resolution_pb2.ResolveBrokerRequest(device_uuid="one")
    async with contextlib.AsyncExitStack() as exits:
        stack = prepared(database, tmp_path, exits)
        first = await exits.enter_async_context(contextlib.AsyncExitStack())
        # Without a configured broker, the answer shows which replica gave it.
        port = await first.enter_async_context(
            broker_service.__main__.running(stack.broker_config(mqtt_broker_url="mqtt://first:1"))
        )
        await exits.enter_async_context(
            broker_service.__main__.running(
                stack.broker_config(
                    bind_host="127.0.0.2", bind_port=port, mqtt_broker_url="mqtt://second:1"
                )
            )
        )
        known = await exits.enter_async_context(names())

        async def met_at(target: str, count: int) -> Peer:
            """A client that `count` replicas have answered."""
            peer = stack.peer_at(target)
            exits.push_async_callback(peer.close)
            met: set[str] = set()
            async with asyncio.timeout(10):
                while len(met) < count:
                    met.add((await peer.resolution("ResolveBroker", request)).url)
            return peer

        target = f"dns://127.0.0.1:{known.port}/brokers.test:{port}"
        await met_at(f"dns:///localhost:{port}", 1)
        known.addresses = ["127.0.0.1", "127.0.0.2"]
        await met_at(target, 2)

        # A replica is replaced by one at another address.
        known.addresses = ["127.0.0.1"]
        peer = await met_at(target, 1)
        known.addresses = ["127.0.0.2"]
        await first.aclose()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(Unavailable):
                    answer = await peer.resolution("ResolveBroker", request)
                    break
                await asyncio.sleep(POLL_S)
        assert answer.url == "mqtt://second:1"
