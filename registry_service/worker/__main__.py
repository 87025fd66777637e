"""`python -m registry_service.worker`: runs the background loops of the registry service.

WORKER_LOOPS names the loops of this process, separated by commas; all if it is not set.
"""

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from chassis import log, loops, process
from chassis.config import ProcessConfig, load
from chassis.database import engine_of, require_schema
from chassis.loops import Loop, States, Turn
from chassis.probes import Probes, serve
from chassis.process_table import writer
from chassis.reporting import Reporter, reported
from registry_service.activity.series.store import SeriesStore
from registry_service.activity.timeline.store import TimelineStore
from registry_service.administration.fleets.revoking import revoking
from registry_service.admission.change_store import ChangeStore
from registry_service.admission.reader_store import ReaderStore
from registry_service.admission.reconciler.config import EnforcementConfig
from registry_service.admission.reconciler.loop import enforcement
from registry_service.bulk.device_counts.folding import folding
from registry_service.bulk.jobs.runner import running_jobs
from registry_service.config import WorkerConfig
from registry_service.provisioning.period_store import PeriodStore
from registry_service.system.change_store import OldChanges
from registry_service.system.process_store import ProcessStore
from registry_service.tables import SCHEMA_REVISION

ENFORCEMENT = "enforcement"
# How long loops wait after a turn in which there was nothing to do.
END_READERS_S = 2.0
FORGET_S = 60.0


def loops_of(config: WorkerConfig, holder: str) -> list[Loop]:
    """All loops. `holder` names this process in leases, for people."""

    @asynccontextmanager
    async def database() -> AsyncIterator[AsyncEngine]:
        # Each loop has its own connections, so that a loop that hangs delays no other.
        engine = engine_of(config.database_url, pool_size=1)
        try:
            yield engine
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def jobs() -> AsyncIterator[Turn]:
        async with (
            database() as engine,
            running_jobs(engine, holder, config.job_lease_s, config.job_poll_s) as turn,
        ):
            yield turn

    @asynccontextmanager
    async def device_counts() -> AsyncIterator[Turn]:
        async with database() as engine:
            yield folding(engine)

    @asynccontextmanager
    async def fleet_revocations() -> AsyncIterator[Turn]:
        async with database() as engine:
            yield revoking(engine)

    @asynccontextmanager
    async def readers() -> AsyncIterator[Turn]:
        async with database() as engine:
            store = ReaderStore(engine, config.reader_transaction_s, config.reader_session_s)

            async def turn() -> float:
                await store.end()
                return END_READERS_S

            yield turn

    @asynccontextmanager
    async def forgetting() -> AsyncIterator[Turn]:
        async with database() as engine:
            changes, periods = ChangeStore(engine), PeriodStore(engine)
            series, timeline = SeriesStore(engine), TimelineStore(engine)
            addresses_kept = timedelta(days=config.timeline_address_days)
            kinds, processes = OldChanges(engine), ProcessStore(engine)

            async def turn() -> float:
                await changes.forget()
                await periods.end()
                await series.forget()
                await timeline.clear_addresses(addresses_kept)
                await kinds.forget()
                await processes.forget()
                return FORGET_S

            yield turn

    return [
        Loop("jobs", jobs),
        Loop("device-counts", device_counts),
        Loop("fleet-revocations", fleet_revocations),
        Loop("readers", readers),
        Loop("forgetting", forgetting),
        Loop(ENFORCEMENT, lambda: enforcement(load(EnforcementConfig), holder)),
    ]


def wanted_loops(config: WorkerConfig) -> list[Loop]:
    """The loops of this process. Raises `SystemExit` for a name that no loop has."""
    holder = f"{socket.gethostname()}/{os.getpid()}"
    try:
        return loops.chosen(loops_of(config, holder), config.worker_loops)
    except loops.UnknownLoop as error:
        raise SystemExit(f"WORKER_LOOPS: {error}") from None


@asynccontextmanager
async def running(
    config: WorkerConfig,
    wanted: Sequence[Loop],
    probes: Probes,
    of_loops: Sequence[ProcessConfig] = (),
) -> AsyncIterator[None]:
    """The whole process, until the block ends. `of_loops` are the configurations that loops have
    besides, to be reported.
    """
    async with AsyncExitStack() as stack:
        engine = engine_of(config.database_url, pool_size=1)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        states = States(loop.name for loop in wanted)
        probes.ready_when(states.readiness)
        reporter = Reporter([config, *of_loops], probes, states)
        await stack.enter_async_context(reported(reporter, writer(engine)))
        await stack.enter_async_context(process.background(loops.run(wanted, states)))
        yield


if __name__ == "__main__":
    config = load(WorkerConfig)
    log.configure("worker", config.log_level)
    wanted, probes = wanted_loops(config), Probes()
    of_loops = [load(EnforcementConfig) for loop in wanted if loop.name == ENFORCEMENT]
    serve(probes, config.metrics_host, config.metrics_port)
    process.run(running(config, wanted, probes, of_loops), probes)
