"""A database that neither answers nor refuses connections."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.stack import Stack


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """Freezes the server's processes; the kernel still accepts and acknowledges for them."""
    server = stack.database.server
    backends = stack.database.execute("SELECT pid FROM pg_stat_activity WHERE datname IS NOT NULL")
    pids = [server.pid, *(pid for (pid,) in backends)]
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        # The process of a closed connection may have ended.
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def test_a_frozen_database_is_given_up_in_time_and_found_again(stack: Stack) -> None:
    before = (await stack.register("before")).json()
    loop = asyncio.get_running_loop()
    with frozen(stack):
        begun = loop.time()
        answers = await asyncio.gather(
            *(stack.register(f"during-{n}") for n in range(5)), stack.connection("before")
        )
        assert {answer.status_code for answer in answers} == {503}
        assert all("Retry-After" in answer.headers for answer in answers)
        # The gateway's own limit is ten seconds.
        assert loop.time() - begun < 12
        assert (await stack.http.get("/healthz")).status_code == 200
    async with asyncio.timeout(20):
        while (again := await stack.register("before")).status_code == 503:
            await asyncio.sleep(0.1)
    assert again.json()["mqtt"]["password"] == before["mqtt"]["password"]
    assert (await stack.register("after")).status_code == 201
