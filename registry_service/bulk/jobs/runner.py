"""Runs jobs: a chunk of each in turn, one process at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database_failures import described
from chassis.errors import LostRace, Unavailable
from chassis.leases import LeaseLost
from chassis.loops import Turn
from registry_service.bulk.jobs.chunks import next_size
from registry_service.bulk.jobs.work_store import WorkStore

log = structlog.get_logger(__name__)

FIRST_SIZE = 1_000

RUNNING = Gauge("mooring_jobs_running", "Jobs that run, as this process last saw it")
ROWS = Counter("mooring_job_rows_total", "Rows that jobs have handled, by outcome", ["outcome"])
CHUNK_SECONDS = Histogram(
    "mooring_job_chunk_seconds",
    "How long the chunks of jobs took: devices are locked for as long",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
)


class Runner:
    """Runs jobs while this process holds the lease; other processes wait for it."""

    def __init__(self, store: WorkStore, holder: str) -> None:
        """`holder` names this process in the lease."""
        self._store = store
        self._holder = holder
        self._term: int | None = None
        self._size = FIRST_SIZE

    async def run(self) -> bool:
        """Runs one chunk of each running job. Returns whether it did: false without the lease, or
        if no job runs. Raises `Unavailable`.
        """
        running = await self._store.running()
        RUNNING.set(len(running))
        if not running:
            return False
        if self._term is None:
            self._term = await self._store.lease.take(self._holder)
            if self._term is None:
                return False
            log.info("runs jobs from now on", term=self._term)
        try:
            for job_id in running:
                await self._work(self._term, job_id)
        except LeaseLost:
            log.info("another process runs jobs", term=self._term)
            self._term = None
            return False
        return True

    async def stop(self) -> None:
        """Gives up the lease, so that another process can begin at once."""
        if self._term is None:
            return
        try:
            await self._store.lease.give_up(self._term)
        except Unavailable:
            log.warning("the lease could not be given up")

    async def _work(self, term: int, job_id: int) -> None:
        try:
            chunk = await self._store.work(term, job_id, self._size)
        except LeaseLost:
            raise
        except LostRace:
            log.info("a chunk is repeated", job_id=job_id)
            return
        except DBAPIError as error:
            # The job is paused, because the chunk would fail again and delay other jobs.
            log.exception("a job cannot go on", job_id=job_id, **described(error))
            await self._store.fail(job_id, "a fault of Mooring, which is in the log")
            return
        if chunk is None:
            return
        CHUNK_SECONDS.observe(chunk.took_s)
        for outcome, count in chunk.outcomes.items():
            ROWS.labels(outcome).inc(count)
        self._size = next_size(self._size, chunk.handled, chunk.took_s)


@asynccontextmanager
async def running_jobs(
    engine: AsyncEngine, holder: str, lease_s: float, interval_s: float
) -> AsyncIterator[Turn]:
    """Yields a loop's turn; at the end of the block another process may run jobs at once.

    `holder` names this process in the lease. After the last renewal of the lease, no other process
    runs jobs for `lease_s`. If there are no jobs, the next turn follows after `interval_s`.
    """
    runner = Runner(WorkStore(engine, lease_s), holder)

    async def turn() -> float:
        return 0.0 if await runner.run() else interval_s

    try:
        yield turn
    finally:
        await runner.stop()
