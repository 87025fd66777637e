"""`python -m broker_service.worker`: runs the background loops of the broker service.

WORKER_LOOPS names the loops of this process, separated by commas; all if it is not set.
"""

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from broker_service.config import BrokerWorkerConfig
from broker_service.encryption import EncryptionKeys
from broker_service.health.keeper import LEASE, LEASE_S, Keeper
from broker_service.health.lateness import Lateness
from broker_service.health.probe_store import forget
from broker_service.health.prober import Prober, Timings
from broker_service.health.state_store import write_capacities
from broker_service.health.target_store import Targets
from broker_service.placements.store import CHANNEL
from broker_service.tables import SCHEMA_REVISION
from chassis import log, loops, process
from chassis.config import load
from chassis.database import engine_of, forgetting, require_schema
from chassis.leases import Lease
from chassis.listening import Listener
from chassis.loops import Loop, States, Turn
from chassis.probes import Probes, serve
from chassis.process_table import writer
from chassis.reporting import Reporter, reported

CAPACITY_S = 0.5
FORGET_S = 60.0
# Places that have not reported for this many intervals do not count.
LATELY_INTERVALS = 4.0


def loops_of(config: BrokerWorkerConfig, holder: str) -> list[Loop]:
    """All loops. `holder` names this process in the lease, for people."""

    @asynccontextmanager
    async def database() -> AsyncIterator[AsyncEngine]:
        # Each loop has its own connections, so that a loop that hangs delays no other.
        engine = engine_of(config.database_url, pool_size=2)
        try:
            yield engine
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def probing() -> AsyncIterator[Turn]:
        keys = EncryptionKeys.read(config.encryption_keys_file)
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(database())
            lateness = Lateness()
            await stack.enter_async_context(process.background(lateness.watch()))
            listener = Listener(config.database_url, CHANNEL, [forgetting(engine)])
            targets = Targets(engine, listener, keys)
            await stack.enter_async_context(process.background(targets.keep_current()))
            await targets.begun()
            keeper = Keeper(
                Lease(engine, LEASE, LEASE_S),
                holder,
                targets,
                Prober(config.broker_address_policy, timings_of(config), lateness),
                vantage=config.health_vantage,
                dwell_s=config.health_dwell_s,
                lately_s=LATELY_INTERVALS * config.health_interval_s,
                acts=config.health_acts,
            )
            stack.push_async_callback(keeper.stop)
            yield keeper.turn

    @asynccontextmanager
    async def capacity() -> AsyncIterator[Turn]:
        async with database() as engine:

            async def turn() -> float:
                await write_capacities(engine)
                return CAPACITY_S

            yield turn

    @asynccontextmanager
    async def forgetting_old() -> AsyncIterator[Turn]:
        async with database() as engine:

            async def turn() -> float:
                await forget(engine)
                return FORGET_S

            yield turn

    return [
        Loop("probing", probing),
        Loop("capacity", capacity),
        Loop("forgetting", forgetting_old),
    ]


def timings_of(config: BrokerWorkerConfig) -> Timings:
    """When brokers are probed."""
    return Timings(
        interval_s=config.health_interval_s,
        timeout_s=config.health_timeout_s,
        session_s=config.health_session_s,
        slow_ms=config.health_slow_ms,
    )


def wanted_loops(config: BrokerWorkerConfig) -> list[Loop]:
    """The loops of this process. Raises `SystemExit` for a name that no loop has."""
    holder = f"{socket.gethostname()}/{os.getpid()}"
    try:
        return loops.chosen(loops_of(config, holder), config.worker_loops)
    except loops.UnknownLoop as error:
        raise SystemExit(f"WORKER_LOOPS: {error}") from None


@asynccontextmanager
async def running(
    config: BrokerWorkerConfig, wanted: Sequence[Loop], probes: Probes
) -> AsyncIterator[None]:
    """The whole process, until the block ends."""
    async with AsyncExitStack() as stack:
        engine = engine_of(config.database_url, pool_size=1)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        states = States(loop.name for loop in wanted)
        probes.ready_when(states.readiness)
        reporter = Reporter([config], probes, states)
        await stack.enter_async_context(reported(reporter, writer(engine)))
        await stack.enter_async_context(process.background(loops.run(wanted, states)))
        yield


if __name__ == "__main__":
    config = load(BrokerWorkerConfig)
    log.configure("broker_worker", config.log_level)
    wanted, probes = wanted_loops(config), Probes()
    serve(probes, config.metrics_host, config.metrics_port)
    process.run(running(config, wanted, probes), probes)
