"""Large files are uploaded at once to a real gateway process, which is then killed."""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.spool import MAX_UPLOADS
from gateway.uploads import MAX_BYTES_IN_MEMORY, NDJSON
from local.postgres import free_port
from tests.chaos.replicas import Replica, running
from tests.served import NO_TLS
from tests.stack import PATIENCE_S, Stack
from tests.supervised import POLL_S

ROWS = 40
# Blanks at the end of a row make a file large that is imported quickly.
ROW_BYTES = 100_000
HALF = ROWS * ROW_BYTES // 2


def file_of(name: str) -> bytes:
    """Each half of a file is larger than what the gateway keeps in memory."""
    rows = (json.dumps({"uuid": f"{name}-{row}", "fleet_id": "demo"}) for row in range(ROWS))
    return "".join(f"{row:<{ROW_BYTES - 1}}\n" for row in rows).encode()


def open_files(folder: Path) -> list[int]:
    """The size of each file below `folder` that a process has open, also of deleted files."""
    sizes = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if descriptor.readlink().is_relative_to(folder):
                sizes.append(descriptor.stat().st_size)
    return sizes


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(POLL_S)


@dataclass
class Upload:
    """An import of which the gateway has received one half."""

    name: str
    reader: StreamReader
    writer: StreamWriter

    async def finish(self) -> list[dict[str, Any]]:
        """Sends the other half; returns the lines of the answer."""
        self.writer.write(file_of(self.name)[HALF:])
        async with asyncio.timeout(PATIENCE_S):
            head, _, body = (await self.reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return [json.loads(line) for line in body.splitlines() if line.startswith(b"{")]


@dataclass
class Gateway:
    """A gateway process with a TMPDIR that no other process uses."""

    process: Replica
    temporary: Path
    http: httpx2.AsyncClient
    token: str

    async def begin(self, name: str) -> Upload:
        """Sends the first half of a file."""
        host, _, port = self.process.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST /api/v1/devices/import HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: {NDJSON}\r\n"
            f"Content-Length: {2 * HALF}\r\n\r\n"
        )
        writer.write(head.encode() + file_of(name)[:HALF])
        await writer.drain()
        return Upload(name, reader, writer)

    async def send(self, name: str) -> httpx2.Response:
        """Sends a whole file."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": NDJSON}
        path = "/api/v1/devices/import"
        return await self.http.post(path, content=file_of(name), headers=headers)


@pytest.fixture
async def gateway(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    port = free_port()
    process = Replica(
        "gateway", port, stack.gateway_config(bind_port=port), tmp_path / "gateway.log"
    )
    url = f"http://{process.address}"
    async with (
        running(process),
        httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S, verify=NO_TLS) as http,
    ):
        yield Gateway(process, temporary, http, stack.admin_token)


@asynccontextmanager
async def half_sent(gateway: Gateway, count: int) -> AsyncIterator[list[Upload]]:
    """Begins `count` uploads; the gateway keeps the first half of each on disk."""
    uploads = [await gateway.begin(f"u{number}") for number in range(count)]
    try:
        await until(
            lambda: sum(s > MAX_BYTES_IN_MEMORY for s in open_files(gateway.temporary)) == count
        )
        yield uploads
    finally:
        for upload in uploads:
            upload.writer.close()


def devices(stack: Stack) -> set[str]:
    return {uuid for (uuid,) in stack.database.execute("SELECT uuid FROM devices")}


def rows_of(name: str) -> set[str]:
    return {f"{name}-{row}" for row in range(ROWS)}


def check_whole(lines: list[dict[str, Any]]) -> None:
    *rows, end = lines
    assert [row["outcome"] for row in rows] == ["created"] * ROWS
    assert end["created"] == ROWS, end


async def test_large_uploads_are_refused_beyond_a_number_and_leave_nothing(
    stack: Stack, gateway: Gateway
) -> None:
    key = stack.provisioning_key
    async with half_sent(gateway, MAX_UPLOADS) as uploads:
        assert list(gateway.temporary.iterdir()) == []
        refused = await gateway.send("more")
        assert (refused.status_code, refused.json()["reason"]) == (503, "OVERLOADED")
        assert int(refused.headers["Retry-After"]) >= 1
        assert devices(stack) == set()

        # Small requests are answered while uploads pause, and while they are imported.
        stack.http = gateway.http
        assert (await stack.register("small", key=key)).status_code == 201
        ended, cut_off = uploads[: MAX_UPLOADS // 2], uploads[MAX_UPLOADS // 2 :]
        answers, *registered = await asyncio.gather(
            asyncio.gather(*(upload.finish() for upload in ended)),
            *(stack.register(f"small-{number}", key=key) for number in range(20)),
        )
        assert {answer.status_code for answer in registered} == {201}
        for lines in answers:
            check_whole(lines)

        await gateway.process.kill()
        assert open_files(gateway.temporary) == []
        assert list(gateway.temporary.iterdir()) == []
        for upload in cut_off:
            with suppress(ConnectionError):
                assert await upload.reader.read() == b""
    imported = set().union(*(rows_of(upload.name) for upload in ended))
    small = {"small", *(f"small-{number}" for number in range(20))}
    assert devices(stack) == imported | small

    await gateway.process.start()
    await gateway.process.until_ready()
    for upload in cut_off:
        again = await gateway.send(upload.name)
        check_whole([json.loads(line) for line in again.text.splitlines()])
        imported |= rows_of(upload.name)
    assert devices(stack) == imported | small
    await until(lambda: open_files(gateway.temporary) == [])
