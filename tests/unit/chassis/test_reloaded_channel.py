"""A gRPC client replaces its certificate and CAs while it runs, and no call fails."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from chassis import reloaded_channel
from chassis.client import ServiceClient
from chassis.errors import Unavailable
from chassis.grpc_tls import ReloadedTls
from chassis.reloaded import LOOK_EVERY_S
from chassis.reloaded_channel import ReloadedChannel
from chassis.trust import Credentials
from tests.unit.chassis.test_grpc_tls import PATIENCE_S, write

CALLS_PER_S = 50
CLOSE_AFTER_S = 3.0


class Server:
    """Answers with the name in the client's certificate; holds calls for `held` until `release`."""

    def __init__(self) -> None:
        self.is_holding = asyncio.Event()
        self.release = asyncio.Event()

    async def caller(self, service: bytes, context: Any) -> bytes:
        if health_pb2.HealthCheckRequest.FromString(service).service == "held":
            self.is_holding.set()
            await self.release.wait()
        (name,) = context.auth_context()["x509_subject_alternative_name"]
        return cast("bytes", name)

    @contextlib.asynccontextmanager
    async def serving(self, files: tuple[Path, Path, Path]) -> AsyncIterator[int]:
        server = grpc.aio.server()
        servicer = health.aio.HealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        handlers: dict[str, Any] = {
            "Caller": grpc.unary_unary_rpc_method_handler(cast("Any", self.caller))
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("mooring.test.Test", handlers)]
        )
        port = server.add_secure_port("127.0.0.1:0", ReloadedTls(*files).server())
        await server.start()
        try:
            yield port
        finally:
            await server.stop(None)


class Client:
    def __init__(self, port: int, files: tuple[Path, Path, Path]) -> None:
        credentials = Credentials(client=ReloadedTls(*files).client)
        self.service = ServiceClient(f"localhost:{port}", credentials)
        self._who: Any = self.service.channel.unary_unary(
            "/mooring.test.Test/Caller",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        )

    async def caller(self, service: str = "") -> str:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        request = health_pb2.HealthCheckRequest(service=service)
        found: bytes = await self.service.call(self._who, request, deadline=deadline)
        return found.decode()

    async def call_until(self, stopped: asyncio.Event) -> int:
        """Calls at a steady rate; raises the error of the first call that fails."""
        calls = []
        async with asyncio.TaskGroup() as group:
            while not stopped.is_set():
                calls.append(group.create_task(self.caller()))
                await asyncio.sleep(1 / CALLS_PER_S)
        return len(calls)

    async def stays(self, name: str) -> None:
        """Waits until the files were checked."""
        loop = asyncio.get_running_loop()
        until = loop.time() + 2.5 * LOOK_EVERY_S
        while loop.time() < until:
            assert await self.caller() == name

    async def becomes(self, name: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.caller() != name:
                await asyncio.sleep(0.02)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


async def test_the_ca_is_replaced_and_no_call_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloaded_channel, "CLOSE_AFTER_S", CLOSE_AFTER_S)
    one, two = trustme.CA(), trustme.CA()
    of_server, of_client = folder(tmp_path / "server"), folder(tmp_path / "client")
    files = write(of_client, one, one.issue_cert("one.test"))
    server = Server()
    async with server.serving(write(of_server, one, one.issue_cert("localhost"))) as port:
        client = Client(port, files)
        channel = client.service.channel
        assert isinstance(channel, ReloadedChannel)
        assert await client.caller() == "one.test"
        old = channel.current
        stopped = asyncio.Event()
        calling = asyncio.create_task(client.call_until(stopped))
        held = asyncio.create_task(client.caller("held"))
        async with asyncio.timeout(PATIENCE_S):
            await server.is_holding.wait()

        with capture_logs() as logs:
            files[1].write_bytes(one.issue_cert("one.test").private_key_pem.bytes())
            async with asyncio.timeout(PATIENCE_S):
                while not logs:
                    assert await client.caller() == "one.test"
            await client.stays("one.test")
        assert ["cannot be used" in line["event"] for line in logs] == [True]
        assert channel.current is old

        # The client has its new files before the server.
        write(of_client, two, two.issue_cert("two.test"))
        await client.stays("one.test")
        write(of_server, two, two.issue_cert("localhost"))
        await client.becomes("two.test")
        assert not held.done()
        server.release.set()
        assert await held == "one.test"
        assert await client.service.is_serving()

        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(grpc.aio.UsageError):  # it is closed
                while old.get_state() != grpc.ChannelConnectivity.SHUTDOWN:
                    await asyncio.sleep(0.02)
        stopped.set()
        assert await calling > CALLS_PER_S
        await client.service.close()
        with pytest.raises(grpc.aio.UsageError):
            await client.caller()


async def test_a_removed_ca_is_soon_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloaded_channel, "CONNECT_WITHIN_S", 1.0)
    one, two = trustme.CA(), trustme.CA()
    files = write(folder(tmp_path / "client"), one, one.issue_cert("one.test"))
    served = write(folder(tmp_path / "server"), one, one.issue_cert("localhost"))
    async with Server().serving(served) as port:
        client = Client(port, files)
        assert await client.caller() == "one.test"
        files[2].write_bytes(two.cert_pem.bytes())
        with pytest.raises(Unavailable):
            await client.becomes("two.test")
        assert not await client.service.is_serving()
        await client.service.close()


async def test_an_unconnected_client_uses_new_files_at_once(tmp_path: Path) -> None:
    one, two = trustme.CA(), trustme.CA()
    files = write(folder(tmp_path / "client"), two, two.issue_cert("two.test"))
    served = write(folder(tmp_path / "server"), one, one.issue_cert("localhost"))
    async with Server().serving(served) as port:
        client = Client(port, files)
        assert not await client.service.is_serving()
        write(tmp_path / "client", one, one.issue_cert("one.test"))
        # Bundles may have comments that are not ASCII.
        files[2].write_bytes("# Tanúsítvány\n".encode() + files[2].read_bytes())
        async with asyncio.timeout(PATIENCE_S):
            while not await client.service.is_serving():
                await asyncio.sleep(0.02)
            await client.service.any_replica.channel_ready()
        assert await client.caller() == "one.test"
        await client.service.close()
