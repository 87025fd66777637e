"""An HTTP server with both ways to serve a request, for raw clients."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chassis.direct_http import Head, Reply
from chassis.http_limits import HttpLimits
from chassis.http_server import Address, serving

PATIENCE_S = 10.0
MAX_BODY_BYTES = 64 * 1024
# One path of each way.
DIRECT, ASGI = "/direct", "/asgi"
# Statuses that are answered before the body is read, if it arrives at all.
EARLY = (401, 403, 404, 405, 411, 413, 415, 422, 429, 503)


def refusing(status: int) -> tuple[str, str]:
    """One path of each way that answers `status` before it reads the body."""
    return f"{DIRECT}/refused/{status}", f"{ASGI}/refused/{status}"


def _refused_with(path: str) -> int | None:
    """The status, if `path` is one of those that refuse; 401 if it names none."""
    _, refuses, status = path.partition("/refused")
    return int(status.removeprefix("/") or 401) if refuses else None


class Echo:
    """Answers the length of the body, or refuses before it is read."""

    max_body_bytes = MAX_BODY_BYTES

    def __init__(self, head: Head) -> None:
        self._head = head

    def admit(self) -> Reply | None:
        status = _refused_with(self._head.path.decode())
        return None if status is None else Reply(status, b"", b"no")

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        answer(Reply(413, b"", b"") if body is None else Reply(200, b"", b"%d" % len(body)))

    def leave(self) -> None:
        """Does nothing, because nothing is under way."""


class Handlers:
    """Serves the paths below `/direct`."""

    def find(self, head: Head) -> Echo | None:
        return Echo(head) if head.path.startswith(DIRECT.encode()) else None


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Does the same as `Echo`, in ASGI."""
    refused = _refused_with(scope["path"])
    status, length, message = refused or 200, 0, {"more_body": refused is None}
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % length})


@contextlib.asynccontextmanager
async def served(
    limits: HttpLimits | None = None, cert_file: Path | None = None, key_file: Path | None = None
) -> AsyncIterator[tuple[str, int]]:
    """Runs the server; yields its address."""
    address = Address("127.0.0.1", 0, cert_file, key_file)
    async with serving(
        app, address, handlers=Handlers(), drain_s=0, grace_s=1, limits=limits
    ) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


async def said(address: tuple[str, int], *sent: bytes) -> bytes:
    """All that a connection receives until the server closes it."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(PATIENCE_S):
            for part in sent:
                writer.write(part)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
            return await reader.read()
    finally:
        writer.close()


def statuses(answers: bytes) -> list[int]:
    """The status of each answer; no body in `answers` may look like a status line."""
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def is_open(raw: socket.socket) -> bool:
    """Whether the server has not closed the connection; `raw` must not block."""
    try:
        return bool(raw.recv(65_536))
    except BlockingIOError:
        return True
    except OSError:
        return False
