"""Runs a service as a process until it gets a signal to stop."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
import uvloop

from chassis.probes import Probes

log = structlog.get_logger(__name__)

# The number of new objects after which the youngest generation is collected; Python's default is
# 700.
GC_THRESHOLD = 50_000

# How long a loop may take to end before it is cancelled once more.
CANCEL_AGAIN_S = 5.0


def run(service: AbstractAsyncContextManager[object], probes: Probes | None = None) -> None:
    """Enters `service`, and leaves it in order at SIGTERM or SIGINT, even while it starts. `probes`
    records when the service has started and when it stops.
    """
    uvloop.run(_until_stopped(service, probes or Probes()))


async def _until_stopped(service: AbstractAsyncContextManager[object], probes: Probes) -> None:
    stopped = asyncio.Event()
    has_started = asyncio.Event()

    async def serve() -> None:
        async with service:
            has_started.set()
            _settle()
            probes.begin()
            await stopped.wait()
            probes.leave()
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


def _settle() -> None:
    """Makes the garbage collector ignore all present objects, which stay until the end, and run
    less often. Requests create hardly any reference cycles. With Python's defaults, garbage
    collection took an eighth of the gateway's time under heavy load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


@contextlib.asynccontextmanager
async def background(loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `loop` beside the block and cancels it at the end.

    A loop handles the errors that it expects. Any other error ends the block too and is raised from
    it, because a service without its loop would seem to work.
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
        # A library may take a cancellation for one of its own and go on.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
        if not task.cancelled():
            task.result()
