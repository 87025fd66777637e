"""What a process says of itself, so that administrators see all processes in one list.

Each process writes a report every few seconds. The gateway cannot reach the other processes, and
they need no port for this. A report that cannot be written changes nothing for the process.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID, uuid4

import structlog
from prometheus_client import Counter

from chassis.config import ProcessConfig
from chassis.loops import LoopState, States
from chassis.probes import Probes
from chassis.process import background
from chassis.version import VERSION

log = structlog.get_logger(__name__)

REPORT_S = 10.0
# A report is also written when a check has changed. They are looked at as often, for the first time
# this long after the start.
LOOK_S = 2.0
# How long writing a report may take.
WRITE_S = 3.0
# A process that stops waits this long for its last report.
LAST_S = 0.5

FAILED = Counter("mooring_report_failures_total", "Reports of this process that were not written")


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a process at one time."""

    id: UUID
    process: str
    host: str
    pid: int
    version: str
    started_at: datetime
    has_ended: bool
    is_ready: bool
    # By the name of the check: "serving", or the problem.
    checks: Mapping[str, str]
    loops: Mapping[str, LoopState]
    # By the name of the variable; without secrets.
    configuration: Mapping[str, str]


# Writes a report; may raise anything.
Write: TypeAlias = Callable[[Report], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes the reports of one process. Created when the process starts."""

    configs: Sequence[ProcessConfig]
    probes: Probes
    states: States = field(default_factory=States)
    id: UUID = field(default_factory=uuid4)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def report(self, *, has_ended: bool = False) -> Report:
        """The report of this moment."""
        is_ready, checks = (False, {}) if has_ended else await self.probes.now()
        return Report(
            id=self.id,
            process=self.configs[0].process,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=VERSION,
            started_at=self.started_at,
            has_ended=has_ended,
            is_ready=is_ready,
            checks=checks,
            loops=self.states.now(),
            configuration={
                name: value for config in self.configs for name, value in config.displayed().items()
            },
        )


@contextlib.asynccontextmanager
async def reported(reporter: Reporter, write: Write) -> AsyncIterator[None]:
    """Reports while the block runs, and at its end that the process has ended. A process that is
    killed cannot report that, and one that ends at once reports nothing.
    """
    began = asyncio.Event()
    async with background(_keep_reported(reporter, write, began)):
        yield
    if began.is_set():
        await _write(write, await reporter.report(has_ended=True), LAST_S)


async def _keep_reported(reporter: Reporter, write: Write, began: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    due_at, checked, was_written = loop.time(), None, True
    while True:
        await asyncio.sleep(LOOK_S)
        began.set()
        try:
            report = await reporter.report()
        except Exception:
            log.exception("the process cannot make its report")
        else:
            now = report.is_ready, report.checks
            if now != checked or loop.time() >= due_at:
                error = await _write(write, report, WRITE_S)
                if error and was_written:
                    log.warning("the process cannot write its report", error=error)
                was_written, checked, due_at = not error, now, loop.time() + REPORT_S


async def _write(write: Write, report: Report, within_s: float) -> str:
    """Why the report was not written; empty if it was."""
    try:
        async with asyncio.timeout(within_s):
            await write(report)
    except Exception as error:  # noqa: BLE001 - nothing may harm the process
        FAILED.inc()
        return type(error).__name__
    return ""
