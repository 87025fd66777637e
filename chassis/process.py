"""A service as a process: runs until it is told to stop."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
import uvloop

log = structlog.get_logger(__name__)


def run(service: AbstractAsyncContextManager[object]) -> None:
    """Enters `service`, and leaves it in order at SIGTERM or SIGINT."""
    uvloop.run(_until_stopped(service))


async def _until_stopped(service: AbstractAsyncContextManager[object]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with service:
        await stopped.wait()
        log.info("stopping")


@contextlib.asynccontextmanager
async def background(loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `loop` beside the block and cancels it at the end.

    A loop handles what it expects; whatever else ends it ends the process, with its traceback,
    for a service whose loop has died looks alive and is not.
    """
    task = asyncio.create_task(loop)
    task.add_done_callback(_end_the_process)
    try:
        yield
    finally:
        task.remove_done_callback(_end_the_process)
        task.cancel()
        await asyncio.wait([task])


def _end_the_process(task: "asyncio.Task[None]") -> None:
    log.critical("a background loop ended", exc_info=task.exception())
    signal.raise_signal(signal.SIGTERM)
