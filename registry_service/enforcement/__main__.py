"""`python -m registry_service.enforcement`: manages the brokers that have a `management`."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator

from chassis import log, metrics, process
from chassis.client import Neighbour
from chassis.config import load
from chassis.database import engine_of, require_schema
from chassis.listening import Listener
from chassis.trust import Credentials
from registry_service.admission.listener.store import CHANNEL
from registry_service.admission.reconciler.config import EnforcementConfig
from registry_service.admission.reconciler.driving import Driving
from registry_service.admission.reconciler.managed import ManagedBrokers
from registry_service.admission.reconciler.store import DRIVING_CHANNEL, EnforcementStore
from registry_service.credentials import KeyRing
from registry_service.tables import SCHEMA_REVISION


@contextlib.asynccontextmanager
async def running(config: EnforcementConfig) -> AsyncIterator[None]:
    """The whole process, until the block ends."""
    ring = KeyRing.read(config.server_keys_file)
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(config.registry_database_url, pool_size=4, by_index=True)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION)
        broker_service = Neighbour(config.broker_service_address, Credentials.of(config))
        stack.push_async_callback(broker_service.close)
        driving = Driving(
            EnforcementStore(engine, config.enforcement_lease_s),
            ManagedBrokers(broker_service),
            Listener(config.registry_database_url, CHANNEL, []),
            Listener(config.registry_database_url, DRIVING_CHANNEL, []),
            ring,
            holder=f"{socket.gethostname()}/{os.getpid()}",
            drift_check_s=config.drift_check_s,
            policy=config.broker_address_policy,
        )
        stack.push_async_callback(driving.stop)
        await stack.enter_async_context(process.background(driving.keep_driving()))
        yield


if __name__ == "__main__":
    config = load(EnforcementConfig)
    log.configure("enforcement", config.log_level)
    metrics.serve(config.enforcement_metrics_port)
    process.run(running(config))
