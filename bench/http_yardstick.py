"""`python -m bench.http_yardstick KIND PORT MARK [DATABASE_URL]`: yardsticks of the access service.

They use the same HTTP server. `empty` answers a constant. `query` runs the same lookup as the
access service, with a statement for each request and without a cache. It makes the file MARK when
it listens.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import msgspec
import uvloop

from bench.programs import Run
from chassis.database import pool_of
from chassis.direct_http import Head, Reply
from chassis.http_server import Address, serving
from local.postgres import free_port
from registry_service.admission.decision import uuid_of_username, uuids_claimed
from registry_service.admission.listener.store import AccessStore, Wanted
from registry_service.passwords import is_password

HEAD = b"content-type: application/json\r\n"
ALLOWED = Reply(
    200,
    HEAD,
    b'{"result":"allow","is_superuser":false,"acl":[{"permission":"allow","action":"all"}]}',
)
DENIED = Reply(200, HEAD, b'{"result":"deny"}')


class Credentials(msgspec.Struct):
    """The fields of the question that are used."""

    username: str
    password: str
    clientid: str


class Empty:
    """The smallest possible handler; it serves all requests itself."""

    max_body_bytes = 64 * 1024

    def find(self, _: Head) -> "Empty":
        """Returns itself, because it has no state of a request."""
        return self

    def admit(self) -> Reply | None:
        """Admits every request."""
        return None

    def ask(self, _: bytes | None, answer: Callable[[Reply], None]) -> None:
        """Answers a constant."""
        answer(ALLOWED)

    def leave(self) -> None:
        """Does nothing, because nothing is under way."""


class Query(Empty):
    """Runs a query for each request."""

    def __init__(self, store: AccessStore) -> None:
        """`store` runs the queries."""
        self._store = store
        self._decoder = msgspec.json.Decoder(Credentials)
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Task[Reply]] = set()

    def ask(self, body: bytes | None, answer: Callable[[Reply], None]) -> None:
        """Answers from a task, as servers do."""
        task = self._loop.create_task(self._look_up(body or b""))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda task: answer(task.result()))

    async def _look_up(self, body: bytes) -> Reply:
        shown = self._decoder.decode(body)
        uuid = uuid_of_username(shown.username) or ""
        claimed = set(uuids_claimed(shown.clientid, "mooring")) - {uuid}
        wanted = Wanted({uuid}, (), claimed)
        subject = (await self._store.look_up(wanted)).subjects.get(shown.username)
        is_allowed = (
            subject is not None
            and subject.is_active
            and is_password(subject.password, shown.password)
        )
        return ALLOWED if is_allowed else DENIED


async def serve(kind: str, port: int, mark: Path, url: str) -> None:
    """Serves until it is killed."""
    async with AsyncExitStack() as stack:
        handlers = Empty()
        if kind == "query":
            handlers = Query(AccessStore(await stack.enter_async_context(pool_of(url))))
        address = Address("127.0.0.1", port)
        await stack.enter_async_context(
            serving(None, address, handlers=handlers, drain_s=0, grace_s=1)
        )
        mark.touch()  # noqa: ASYNC240 - once, before the first call
        await asyncio.Event().wait()


@contextmanager
def running(kind: str, url: str = "") -> Iterator[str]:
    """Runs such a server in its own process; yields its URL."""
    with tempfile.TemporaryDirectory() as name:
        mark, port = Path(name, "listens"), free_port()
        arguments = ("-m", "bench.http_yardstick", kind, str(port), str(mark), url)
        with Run("python", *arguments) as run:
            run.wait_for(mark)
            yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    _, wanted, at, when_listening, database = sys.argv
    uvloop.run(serve(wanted, int(at), Path(when_listening), database))
