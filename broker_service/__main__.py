"""`python -m broker_service`: the broker service as a process."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from broker_service.brokers.device_counts.report_store import ReportStore
from broker_service.brokers.device_counts.servicer import DeviceCountServicer
from broker_service.brokers.device_counts.store import DeviceCountStore
from broker_service.brokers.history.servicer import BrokerHistoryServicer
from broker_service.brokers.history.store import HistoryStore
from broker_service.brokers.management.servicer import ManagementServicer
from broker_service.brokers.management.store import ManagementStore
from broker_service.brokers.references.servicer import BrokerReferenceServicer
from broker_service.brokers.references.store import ReferenceStore
from broker_service.brokers.servicer import BrokerServicer
from broker_service.brokers.store import BrokerStore
from broker_service.brokers.testing.trials import Trials
from broker_service.certificates.rotations.servicer import RotationServicer
from broker_service.certificates.rotations.store import RotationStore
from broker_service.certificates.servicer import CertificateServicer
from broker_service.certificates.store import CertificateStore
from broker_service.config import BrokerServiceConfig
from broker_service.encryption import EncryptionKeys
from broker_service.placements.servicer import ResolutionServicer
from broker_service.placements.snapshot import SnapshotKeeper
from broker_service.placements.store import CHANNEL, PlacementStore
from broker_service.pools.history.servicer import PoolHistoryServicer
from broker_service.pools.history.store import PoolHistoryStore
from broker_service.pools.region_store import PoolRegionStore
from broker_service.pools.servicer import PoolServicer
from broker_service.pools.store import PoolStore
from broker_service.regions.servicer import RegionServicer
from broker_service.regions.store import RegionStore
from broker_service.tables import SCHEMA_REVISION
from chassis import log, process
from chassis.config import load
from chassis.database import engine_of, forgetting, pool_of, require_schema
from chassis.listening import Listener
from chassis.probes import Probes, serve
from chassis.process_table import writer
from chassis.refusals import Refusals
from chassis.reloaded import Reloaded
from chassis.reporting import Reporter, reported
from chassis.server import Health, serving
from chassis.tickets import read_public
from chassis.trust import Credentials


@contextlib.asynccontextmanager
async def running(config: BrokerServiceConfig, probes: Probes | None = None) -> AsyncIterator[int]:
    """The whole service, until the block ends; yields its port."""
    keys = EncryptionKeys.read(config.encryption_keys_file)
    ticket_keys = Reloaded(config.ticket_public_keys_file, read_public)
    credentials = Credentials.of(config, lambda: ticket_keys.value)
    probes = probes or Probes()
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(config.database_url)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        await stack.enter_async_context(reported(Reporter([config], probes), writer(engine)))
        broker_store = BrokerStore(engine, keys)
        certificate_store = CertificateStore(engine, keys)
        needed = (
            await broker_store.encryption_key_ids() | await certificate_store.encryption_key_ids()
        )
        _require_keys(needed, keys, config.encryption_keys_file)

        refusals = Refusals(engine)
        stack.push_async_callback(refusals.close)
        await stack.enter_async_context(process.background(refusals.keep_written()))
        health = Health()
        probes.ready_when(health.readiness)
        pool = await stack.enter_async_context(pool_of(config.database_url))
        listener = Listener(config.database_url, CHANNEL, [forgetting(engine), pool.drain])
        placement_store = PlacementStore(engine, pool, listener)
        snapshots = SnapshotKeeper(placement_store, listener, health)
        await stack.enter_async_context(process.background(snapshots.keep_current()))
        await snapshots.begun()

        resolution = ResolutionServicer(placement_store, snapshots, config.mqtt_broker_url)
        stack.push_async_callback(resolution.close)
        # All services of this process; their methods state the policies.
        servicers = [
            resolution,
            BrokerServicer(
                broker_store,
                snapshots.refresh,
                Trials(broker_store.password_of, config.broker_address_policy),
            ),
            DeviceCountServicer(DeviceCountStore(engine), ReportStore(engine)),
            BrokerReferenceServicer(ReferenceStore(engine), snapshots.refresh),
            CertificateServicer(certificate_store, snapshots.refresh),
            RotationServicer(RotationStore(engine, keys), snapshots.refresh),
            BrokerHistoryServicer(HistoryStore(engine, keys), snapshots.refresh),
            ManagementServicer(ManagementStore(engine, keys)),
            PoolServicer(
                PoolStore(engine),
                PoolRegionStore(engine),
                DeviceCountStore(engine),
                snapshots.refresh,
            ),
            PoolHistoryServicer(PoolHistoryStore(engine), snapshots.refresh),
            RegionServicer(RegionStore(engine), snapshots.refresh),
        ]
        yield await stack.enter_async_context(
            serving(
                host=config.bind_host,
                port=config.bind_port,
                credentials=credentials,
                servicers=servicers,
                health=health,
                drain_s=config.drain_s,
                refusals=refusals,
            )
        )


def _require_keys(needed: set[int], keys: EncryptionKeys, file: Path) -> None:
    """Raises `SystemExit` if the ring lacks a key with which a stored secret is encrypted."""
    missing = sorted(needed - keys.keys.keys())
    if missing:
        raise SystemExit(
            f"{file}: the database holds secrets under keys that are not in it: "
            f"{', '.join(map(str, missing))}. Restore its backup"
        )


if __name__ == "__main__":
    config = load(BrokerServiceConfig)
    log.configure("broker_service", config.log_level)
    probes = Probes()
    serve(probes, config.metrics_host, config.metrics_port)
    process.run(running(config, probes), probes)
