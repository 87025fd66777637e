"""Notices that are late, repeated or in another order do not end another client's connection."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.brokers import Asking, asking
from tests.stack import Stack

IS_ONLINE = "SELECT is_online FROM devices WHERE uuid = 'one'"
MS = 1_764_150_000_000


@pytest.fixture
async def brokers(stack: Stack) -> AsyncIterator[Asking]:
    async with asking(stack) as running:
        yield running


def emqx(event: str, port: int, at: int, **more: Any) -> dict[str, Any]:
    """A notice as the rule of docs/brokers/emqx.md selects it."""
    times: dict[str, Any] = (
        {"connected_at": MS + at}
        if event == "connected"
        else {"connected_at": "undefined", "disconnected_at": MS + at}
    )
    return {
        "event": f"client.{event}",
        "clientid": "c",
        "username": "device_one",
        "peername": f"192.0.2.1:{port}",
        "timestamp": MS + at + 1,
        "expiry_interval": 0,
        **times,
        **more,
    }


# A client connects again with the same client id, and takes over the first connection.
FIRST = emqx("connected", 1, 0)
SECOND = emqx("connected", 2, 5_000)
ORDERS = [
    (reason, order)
    for reason in ("takenover", "discarded")
    for order in itertools.permutations(
        (FIRST, SECOND, emqx("disconnected", 1, 5_001, reason=reason))
    )
]


async def login_of(brokers: Asking, uuid: str) -> tuple[str, str]:
    mqtt = (await brokers.stack.register(uuid)).json()["mqtt"]
    return mqtt["username"], mqtt["password"]


async def test_no_other_device_takes_the_client_id_of_a_live_connection(
    brokers: Asking,
) -> None:
    stack = brokers.stack
    one, two = await login_of(brokers, "one"), await login_of(brokers, "two")
    for number, (reason, order) in enumerate(ORDERS):
        client_id = f"c{number}"
        for _ in range(2):
            assert await brokers.connects(*one, client_id)
        for event in (*order, *order):
            await brokers.emqx("event", **event | {"clientid": client_id})
        assert not await brokers.connects(*two, client_id), (reason, order)
        async with asyncio.timeout(15):
            while stack.database.execute(IS_ONLINE) != [(True,)]:
                await asyncio.sleep(0.02)
        # When the later connection has ended, the client id is free.
        over = emqx("disconnected", 2, 9_000, reason="normal", clientid=client_id)
        await brokers.emqx("event", **over)
        assert await brokers.connects(*two, client_id)
    async with asyncio.timeout(15):
        while stack.database.execute(IS_ONLINE) != [(False,)]:
            await asyncio.sleep(0.02)


async def test_replicas_never_write_what_is_older_over_what_is_newer(brokers: Asking) -> None:
    """One replica is notified of the live connection, the other later of the end of the previous
    one.
    """
    stack = brokers.stack
    await login_of(brokers, "one")
    async with asking(stack) as other:
        await brokers.emqx("event", **SECOND)
        async with asyncio.timeout(15):
            while stack.database.execute(IS_ONLINE) != [(True,)]:
                await asyncio.sleep(0.02)
        await other.emqx("event", **emqx("disconnected", 1, 4_000, reason="tcp_closed"))
        # A notice of another device has been written since.
        await stack.register("two")
        await other.emqx("event", **SECOND | {"username": "device_two", "clientid": "d"})
        async with asyncio.timeout(15):
            while stack.database.execute("SELECT is_online FROM devices WHERE uuid = 'two'") != [
                (True,)
            ]:
                await asyncio.sleep(0.02)
    assert stack.database.execute(IS_ONLINE) == [(True,)]


async def test_client_ids_of_one_device_do_not_evict_those_of_another(brokers: Asking) -> None:
    one, two = await login_of(brokers, "one"), await login_of(brokers, "two")
    assert await brokers.connects(*one, "mine")
    assert await brokers.connects(*two, "c0")
    for start in range(1, 1_001, 50):
        await asyncio.gather(*(brokers.connects(*two, f"c{n}") for n in range(start, start + 50)))
    assert not await brokers.connects(*two, "mine")
    assert await brokers.connects(*one, "c0")
