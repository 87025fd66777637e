"""No client holds more connections of an HTTP server than allowed, or one for longer."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from chassis.http_limits import Connections, HttpLimits
from tests.http_server import ASGI, DIRECT, PATIENCE_S, said, served, statuses

HEAD = b"POST %b HTTP/1.1\r\nHost: h\r\n"
FINE = b"GET /asgi HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, ssl.SSLContext]:
    """A certificate chain, its key, and the CA that issued it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return chain, key, tls


@contextlib.asynccontextmanager
async def connected(address: tuple[str, int], count: int) -> AsyncIterator[list[socket.socket]]:
    """Opens so many connections that send nothing."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            raw = stack.enter_context(socket.socket())
            raw.setblocking(False)
            await loop.sock_connect(raw, address)
            opened.append(raw)
        yield opened


async def ended(opened: list[socket.socket], count: int) -> None:
    """Waits until the server has closed at least `count` of them."""
    loop = asyncio.get_running_loop()

    async def end(raw: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(raw, 1000):
                pass

    tasks = [asyncio.create_task(end(raw)) for raw in opened]
    async with asyncio.timeout(PATIENCE_S):
        for waiting in range(count):
            await next(iter(asyncio.as_completed(tasks[: len(tasks) - waiting])))
            tasks.sort(key=lambda task: task.done())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_one_address_cannot_take_every_connection(
    is_tls: bool, certificate: tuple[Path, Path, ssl.SSLContext]
) -> None:
    files = certificate[:2] if is_tls else ()
    for limits in (HttpLimits(max_connections_per_host=5), HttpLimits(max_connections=5)):
        async with served(limits, *files) as address, connected(address, 9) as opened:
            await ended(opened, 4)


async def test_idle_connections_are_closed_when_there_is_no_room() -> None:
    limits = HttpLimits(max_connections=20, idle_s=1.0)
    async with served(limits) as address, connected(address, 20):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(ConnectionError):
                    if statuses(await said(address, FINE)) == [200]:
                        break
                await asyncio.sleep(0.05)


def test_connections_are_counted_by_host_except_for_proxies() -> None:
    limits = HttpLimits(max_connections=10, max_connections_per_host=2)
    counted = Connections(limits, [ip_network("10.0.0.0/8")])
    hosts = [counted.enter(f"2001:db8::{number}") for number in range(3)]
    assert hosts[0] is not None
    assert hosts == [hosts[0], hosts[0], None]
    assert counted.enter("2001:db8:0:1::1") is not None
    # The same host, through an IPv6 socket.
    assert counted.enter("192.0.2.1") == counted.enter("::ffff:192.0.2.1") == "192.0.2.1"
    assert counted.enter("192.0.2.1") is None
    proxied = [counted.enter("10.1.1.1") for _ in range(6)]
    assert proxied == [""] * 5 + [None]
    counted.leave("")
    counted.leave("192.0.2.1")
    assert counted.enter("192.0.2.1") == "192.0.2.1"


SLOW = HttpLimits(head_s=0.4, body_s=0.4, idle_s=0.4, quiet_s=0.2, linger_s=0.5)


@pytest.mark.parametrize(
    ("beginning", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nX: ", 408, id="head"),
        pytest.param(b"GET /", 408, id="target"),
        pytest.param(HEAD % b"/direct" + b"Content-Length: 1000\r\n\r\n", 408, id="body"),
        pytest.param(HEAD % b"/asgi" + b"Content-Length: 1000\r\n\r\n", 408, id="ASGI body"),
        pytest.param(
            HEAD % b"/direct/refused" + b"Content-Length: 1000\r\n\r\n", 401, id="rest of a body"
        ),
        pytest.param(
            HEAD % b"/asgi/refused" + b"Content-Length: 900000\r\n\r\n", 401, id="rest of a large"
        ),
    ],
)
async def test_a_slow_request_does_not_keep_a_connection(beginning: bytes, status: int) -> None:
    async with served(SLOW) as address, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(beginning)
        answer = asyncio.create_task(reader.read())
        with contextlib.suppress(ConnectionError):
            while not answer.done():
                writer.write(b"a")
                await asyncio.wait([answer], timeout=0.05)
        assert statuses(await answer) == [status]
        writer.close()


async def test_a_connection_without_a_request_is_closed() -> None:
    async with served(SLOW) as address:
        assert await said(address) == b""
        assert statuses(await said(address, b"GET /direct HTTP/1.1\r\nHost: h\r\n\r\n")) == [200]
        assert statuses(await said(address, b"GET /asgi HTTP/1.1\r\nHost: h\r\n\r\n")) == [200]


async def test_a_body_that_makes_progress_is_not_cut_off() -> None:
    limits = HttpLimits(body_s=0.3, body_bytes_per_s=2_000, idle_s=0.3)
    async with served(limits) as address, asyncio.timeout(PATIENCE_S):
        for path in (DIRECT, ASGI):
            reader, writer = await asyncio.open_connection(*address)
            length = 20 * 200
            writer.write(HEAD % path.encode() + b"Content-Length: %d\r\n\r\n" % length)
            began = asyncio.get_running_loop().time()
            for _ in range(20):
                writer.write(b"a" * 200)
                await writer.drain()
                await asyncio.sleep(0.05)
            assert asyncio.get_running_loop().time() - began > 3 * limits.body_s
            answer = await reader.readuntil(b"%d" % length)
            assert statuses(answer) == [200]
            writer.close()


async def test_an_unfinished_handshake_is_closed(
    certificate: tuple[Path, Path, ssl.SSLContext],
) -> None:
    chain, key, tls = certificate
    limits = HttpLimits(handshake_s=0.3, max_connections_per_host=5)
    async with served(limits, chain, key) as address:
        for beginning in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"):
            async with connected(address, 5) as opened:
                for raw in opened:
                    raw.send(beginning)
                await ended(opened, 5)
        async with asyncio.timeout(PATIENCE_S):
            # Closed connections are not counted any more.
            reader, writer = await asyncio.open_connection(*address, ssl=tls)
            writer.write(FINE)
            assert statuses(await reader.read()) == [200]
            writer.close()


@pytest.mark.parametrize("path", [DIRECT, ASGI])
async def test_a_client_that_reads_nothing_does_not_keep_a_connection(path: str) -> None:
    whole = (HEAD % path.encode() + b"Content-Length: 1\r\n\r\na") * 2_000
    async with served(HttpLimits(unread_s=0.4)) as address, connected(address, 1) as opened:
        with pytest.raises(ConnectionError):
            await ask_for_ever(opened[0], whole)


async def ask_for_ever(raw: socket.socket, whole: bytes) -> None:
    """Sends requests until the server closes the connection; raises `ConnectionError` then."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await asyncio.get_running_loop().sock_sendall(raw, whole)
