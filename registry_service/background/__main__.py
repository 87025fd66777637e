"""`python -m registry_service.background`: runs jobs, folds the counts of devices.

And tells brokers of the devices of large fleets that were disabled, ends sessions of mqtt_reader
that last too long, deletes old changes of access, and ends the hours in which rotations are
counted.
"""

import contextlib
import os
import socket
from collections.abc import AsyncIterator

from chassis import log, metrics, process
from chassis.config import load
from chassis.database import engine_of, require_schema
from registry_service.administration.fleets.revocation_store import FleetRevocationStore
from registry_service.administration.fleets.revoking import keep_revoking
from registry_service.background.config import BackgroundConfig
from registry_service.background.forgetting import keep_forgetting
from registry_service.background.readers import Readers, keep_ending
from registry_service.bulk.device_counts.folding import keep_folded
from registry_service.bulk.device_counts.store import DeviceCountStore
from registry_service.bulk.jobs.runner import Runner
from registry_service.bulk.jobs.work_store import WorkStore
from registry_service.tables import SCHEMA_REVISION


@contextlib.asynccontextmanager
async def running(config: BackgroundConfig) -> AsyncIterator[None]:
    """The whole process, until the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(config.registry_database_url, pool_size=2)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION)
        store = WorkStore(engine, config.job_lease_s)
        runner = Runner(store, f"{socket.gethostname()}/{os.getpid()}")
        stack.push_async_callback(runner.stop)
        await stack.enter_async_context(process.background(runner.keep_running(config.job_poll_s)))
        await stack.enter_async_context(process.background(keep_forgetting(store)))
        readers = Readers(engine, config.reader_transaction_s, config.reader_session_s)
        await stack.enter_async_context(process.background(keep_ending(readers)))
        counts = DeviceCountStore(engine)
        await stack.enter_async_context(process.background(keep_folded(counts)))
        revocations = FleetRevocationStore(engine)
        await stack.enter_async_context(process.background(keep_revoking(revocations)))
        yield


if __name__ == "__main__":
    config = load(BackgroundConfig)
    log.configure("background", config.log_level)
    metrics.serve(config.background_metrics_port)
    process.run(running(config))
