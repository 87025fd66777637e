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
    """Enters `service`, and leaves it in order at SIGTERM or SIGINT, also while it starts."""
    uvloop.run(_until_stopped(service))


async def _until_stopped(service: AbstractAsyncContextManager[object]) -> None:
    stopped = asyncio.Event()
    has_started = asyncio.Event()

    async def serve() -> None:
        async with service:
            has_started.set()
            await stopped.wait()
            log.info("stopping")

    def stop() -> None:
        if has_started.is_set():
            stopped.set()
        else:
            serving.cancel()

    serving = asyncio.create_task(serve())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()


@contextlib.asynccontextmanager
async def background(loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `loop` beside the block and cancels it at the end.

    A loop handles what it expects. Whatever else ends it ends the block too and is raised from it,
    for a service whose loop has died looks alive and is not.
    """
    block = asyncio.current_task()
    task = asyncio.create_task(loop)

    def end_the_block(_: "asyncio.Task[None]") -> None:
        if block is not None:
            block.cancel()

    task.add_done_callback(end_the_block)
    try:
        yield
    finally:
        task.remove_done_callback(end_the_block)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
