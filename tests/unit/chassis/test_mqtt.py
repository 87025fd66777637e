"""Connections to brokers are closed, however their task ends."""

import asyncio

import pytest

from chassis.mqtt import Connection


async def _taken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("cancels", [1, 2, 3])
async def test_a_cancelled_task_closes_its_connection(cancels: int) -> None:
    server = await asyncio.start_server(_taken, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    begun = asyncio.Event()

    async def use() -> None:
        async with Connection(reader, writer).kept_alive():
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await begun.wait()
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    assert task.cancelled()
    assert writer.transport.is_closing()
    server.close()
    await server.wait_closed()
