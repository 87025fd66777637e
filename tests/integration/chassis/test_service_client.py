"""Connections to another service: which addresses are refused, and which servers are waited for."""

import asyncio
import contextlib

import grpc
import pytest

from chassis.client import ServiceClient
from chassis.server import Health, serving
from chassis.trust import Credentials

PLAIN = Credentials(lambda: "s" * 32)
# Longer than the longest pause between two attempts.
HANDSHAKE_S = 1.5


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_a_client_waits_for_a_slow_handshake() -> None:
    async with contextlib.AsyncExitStack() as exits:
        health = Health()
        await health.say("", is_serving=True)
        port = await exits.enter_async_context(
            serving(
                host="127.0.0.1",
                port=0,
                credentials=PLAIN,
                servicers=[],
                health=health,
                drain_s=0,
            )
        )

        greeting: set[asyncio.Task[None]] = set()

        async def greet_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            greeting.add(task)
            ends = [writer]
            try:
                await asyncio.sleep(HANDSHAKE_S)
                upstream, downstream = await asyncio.open_connection("127.0.0.1", port)
                ends.append(downstream)
                await asyncio.gather(_pass_on(reader, downstream), _pass_on(upstream, writer))
            except asyncio.CancelledError:
                # Only `leave` cancels it, at the end of the test.
                return
            finally:
                for end in ends:
                    end.transport.abort()

        async def leave() -> None:
            relay.close()
            for task in greeting:
                task.cancel()
            await asyncio.gather(*greeting, return_exceptions=True)

        relay = await asyncio.start_server(greet_late, "127.0.0.1", 0)
        exits.push_async_callback(leave)
        client = ServiceClient(f"127.0.0.1:{relay.sockets[0].getsockname()[1]}", PLAIN)
        exits.push_async_callback(client.close)
        assert await client.is_serving(timeout_s=3 * HANDSHAKE_S)


def test_a_list_of_addresses_is_refused_where_certificates_need_a_name() -> None:
    trusted = Credentials(client=grpc.ssl_channel_credentials)
    with pytest.raises(SystemExit, match="dns:///"):
        ServiceClient("ipv4:127.0.0.1:1,127.0.0.1:2", trusted)
