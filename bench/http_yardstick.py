"""`python -m bench.http_yardstick KIND PORT MARK [DATABASE_URL]`: what answering brokers costs.

Of the server that our own uses. `empty` answers a constant. `query` looks up what ours looks up,
by the same statement, for each request by itself, and remembers nothing. It makes the file MARK
when it listens.
"""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.programs import Run
from chassis.database import pool_of
from chassis.http_server import Address, serving
from local.postgres import free_port
from registry_service.access.decision import uuid_of_username, uuids_claimed
from registry_service.access.passwords import is_password
from registry_service.access.store import AccessStore, Wanted

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ALLOWED = b'{"result":"allow","is_superuser":false,"acl":[{"permission":"allow","action":"all"}]}'
DENIED = b'{"result":"deny"}'


class Credentials(msgspec.Struct):
    """What is asked about."""

    username: str
    password: str
    clientid: str


async def body_of(receive: Receive) -> bytes:
    """Of one request."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body


async def answer(send: Send, body: bytes) -> None:
    """A 200."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def empty(_: Message, receive: Receive, send: Send) -> None:
    """The least."""
    await body_of(receive)
    await answer(send, ALLOWED)


async def serve(kind: str, port: int, mark: Path, url: str) -> None:
    """Until it is killed."""
    decoder = msgspec.json.Decoder(Credentials)
    async with AsyncExitStack() as stack:
        app = empty
        if kind == "query":
            store = AccessStore(await stack.enter_async_context(pool_of(url)))

            async def app(_: Message, receive: Receive, send: Send) -> None:
                shown = decoder.decode(await body_of(receive))
                uuid = uuid_of_username(shown.username) or ""
                claimed = set(uuids_claimed(shown.clientid, "mooring")) - {uuid}
                wanted = Wanted({uuid}, (), claimed)
                subject = (await store.look_up(wanted)).subjects.get(shown.username)
                is_allowed = (
                    subject is not None
                    and subject.is_active
                    and is_password(subject.password, shown.password)
                )
                await answer(send, ALLOWED if is_allowed else DENIED)

        await stack.enter_async_context(
            serving(app, Address("127.0.0.1", port), drain_s=0, grace_s=1)
        )
        mark.touch()  # noqa: ASYNC240 - once, before anybody calls
        await asyncio.Event().wait()


@contextmanager
def running(kind: str, url: str = "") -> Iterator[str]:
    """Such a server as a process of its own; yields its URL."""
    with tempfile.TemporaryDirectory() as name:
        mark, port = Path(name, "listens"), free_port()
        arguments = ("-m", "bench.http_yardstick", kind, str(port), str(mark), url)
        with Run("python", *arguments) as run:
            run.wait_for(mark)
            yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    _, wanted, at, when_listening, database = sys.argv
    uvloop.run(serve(wanted, int(at), Path(when_listening), database))
