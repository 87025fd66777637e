"""Enforcement as a loop of the worker: manages the brokers that have a `management`."""

import contextlib
from collections.abc import AsyncIterator

from chassis.client import ServiceClient
from chassis.database import engine_of
from chassis.listening import Listener
from chassis.loops import Turn
from chassis.trust import Credentials
from registry_service.admission.change_store import CHANNEL
from registry_service.admission.reconciler.config import EnforcementConfig
from registry_service.admission.reconciler.managed import ManagedBrokers
from registry_service.admission.reconciler.reconciler import Reconciler
from registry_service.admission.reconciler.store import RECONCILER_CHANNEL, EnforcementStore
from registry_service.credentials import KeyRing


@contextlib.asynccontextmanager
async def enforcement(config: EnforcementConfig, holder: str) -> AsyncIterator[Turn]:
    """Yields the loop's turn. `holder` names this process in the lease.

    The secrets that `config` names are read only here, so a process without this loop needs none of
    them. Raises `SystemExit` for an invalid ring.
    """
    ring = KeyRing.read(config.server_keys_file)
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(config.database_url, pool_size=4, by_index=True)
        stack.push_async_callback(engine.dispose)
        broker_service = ServiceClient(config.broker_service_address, Credentials.of(config))
        stack.push_async_callback(broker_service.close)
        reconciler = Reconciler(
            EnforcementStore(engine, config.enforcement_lease_s),
            ManagedBrokers(broker_service),
            Listener(config.database_url, CHANNEL, []),
            Listener(config.database_url, RECONCILER_CHANNEL, []),
            ring,
            holder=holder,
            drift_check_s=config.drift_check_s,
            policy=config.broker_address_policy,
        )
        yield await stack.enter_async_context(reconciler.reconciling())
