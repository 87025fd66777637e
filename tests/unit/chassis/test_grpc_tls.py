"""A gRPC server uses the present certificate in its files, and closes no connection for a
new one.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from chassis.grpc_tls import ReloadedTls

PATIENCE_S = 30.0


def write(folder: Path, ca: trustme.CA, own: trustme.LeafCert) -> tuple[Path, Path, Path]:
    files = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    files[0].write_bytes(b"".join(pem.bytes() for pem in own.cert_chain_pems))
    files[1].write_bytes(own.private_key_pem.bytes())
    files[2].write_bytes(ca.cert_pem.bytes())
    return files


async def shown(port: int, ca: trustme.CA, folder: Path) -> str:
    """The fingerprint of the certificate that a new caller gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return hashlib.sha256(found).hexdigest()


async def until(is_so: Callable[[str], bool], port: int, ca: trustme.CA, folder: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so(await shown(port, ca, folder)):
            await asyncio.sleep(0.1)


async def test_a_certificate_is_replaced_and_no_call_is_lost(tmp_path: Path) -> None:
    ca = trustme.CA()
    caller = tmp_path / "caller"
    caller.mkdir()
    own = ca.issue_cert("localhost")
    write(caller, ca, own)
    files = write(tmp_path, ca, ca.issue_cert("localhost"))
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", ReloadedTls(*files).server())
    await server.start()
    credentials = grpc.ssl_channel_credentials(
        ca.cert_pem.bytes(), own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
    )
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        exchanged = asyncio.Event()

        async def call_all_the_time() -> int:
            calls = 0
            while not exchanged.is_set():
                await check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
                calls += 1
            return calls

        calling = asyncio.create_task(call_all_the_time())
        first = await shown(port, ca, caller)
        write(tmp_path, ca, ca.issue_cert("localhost"))
        await until(lambda found: found != first, port, ca, caller)
        second = await shown(port, ca, caller)
        # The key does not belong to the certificate, as in the middle of a replacement.
        good = files[1].read_bytes()
        files[1].write_bytes(ca.issue_cert("localhost").private_key_pem.bytes())
        with capture_logs() as logs:
            async with asyncio.timeout(PATIENCE_S):
                while not any("cannot be used" in line["event"] for line in logs):
                    assert await shown(port, ca, caller) == second
        files[1].write_bytes(good)
        write(tmp_path, ca, ca.issue_cert("localhost"))
        await until(lambda found: found not in (first, second), port, ca, caller)
        exchanged.set()
        assert await calling > 0
    await server.stop(None)
