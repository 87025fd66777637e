"""`python -m broker_service`: the broker service as a process."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from mooring.broker.v1 import (
    brokers_pb2_grpc,
    certificates_pb2_grpc,
    device_counts_pb2_grpc,
    history_pb2_grpc,
    management_pb2_grpc,
    resolution_pb2_grpc,
    rotations_pb2_grpc,
)

from broker_service.brokers import servicer as brokers
from broker_service.brokers.device_counts import servicer as device_counts
from broker_service.brokers.device_counts.store import DeviceCountStore
from broker_service.brokers.history import servicer as history
from broker_service.brokers.history.store import HistoryStore
from broker_service.brokers.management import servicer as management
from broker_service.brokers.management.store import ManagementStore
from broker_service.brokers.store import BrokerStore
from broker_service.certificates import servicer as certificates
from broker_service.certificates.rotations import servicer as rotations
from broker_service.certificates.rotations.store import RotationStore
from broker_service.certificates.store import CertificateStore
from broker_service.config import BrokerServiceConfig
from broker_service.encryption import EncryptionKeys
from broker_service.placements import servicer as placements
from broker_service.placements.snapshot import SnapshotKeeper
from broker_service.placements.store import CHANNEL, PlacementStore
from broker_service.tables import SCHEMA_REVISION
from chassis import log, process
from chassis.config import load
from chassis.database import engine_of, forgetting, pool_of, require_schema
from chassis.listening import Listener
from chassis.probes import Probes, serve
from chassis.refusals import Refusals
from chassis.reloaded import Reloaded
from chassis.server import Health, serving
from chassis.tickets import read_public
from chassis.trust import Credentials

SERVICERS = (placements, brokers, certificates, rotations, device_counts, history, management)


@contextlib.asynccontextmanager
async def running(config: BrokerServiceConfig, probes: Probes | None = None) -> AsyncIterator[int]:
    """The whole service, until the block ends; yields its port."""
    keys = EncryptionKeys.read(config.encryption_keys_file)
    ticket_keys = Reloaded(config.ticket_public_keys_file, read_public)
    credentials = Credentials.of(config, lambda: ticket_keys.value)
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(config.database_url)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
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
        (probes or Probes()).ready_when(health.readiness)
        pool = await stack.enter_async_context(pool_of(config.database_url))
        listener = Listener(config.database_url, CHANNEL, [forgetting(engine), pool.drain])
        placement_store = PlacementStore(engine, pool, listener)
        snapshots = SnapshotKeeper(placement_store, listener, health)
        await stack.enter_async_context(process.background(snapshots.keep_current()))
        await snapshots.begun()

        resolution = placements.ResolutionServicer(
            placement_store, snapshots, config.mqtt_broker_url
        )
        stack.push_async_callback(resolution.close)
        broker = brokers.BrokerServicer(broker_store, snapshots.refresh)
        counts = device_counts.DeviceCountServicer(DeviceCountStore(engine))
        certificate = certificates.CertificateServicer(certificate_store, snapshots.refresh)
        rotation = rotations.RotationServicer(RotationStore(engine, keys), snapshots.refresh)
        revisions = history.BrokerHistoryServicer(HistoryStore(engine, keys), snapshots.refresh)
        managed = management.ManagementServicer(ManagementStore(engine, keys))

        def register(server: grpc.aio.Server) -> None:
            resolution_pb2_grpc.add_ResolutionServiceServicer_to_server(resolution, server)
            brokers_pb2_grpc.add_BrokerServiceServicer_to_server(broker, server)
            device_counts_pb2_grpc.add_DeviceCountServiceServicer_to_server(counts, server)
            certificates_pb2_grpc.add_CertificateServiceServicer_to_server(certificate, server)
            rotations_pb2_grpc.add_RotationServiceServicer_to_server(rotation, server)
            history_pb2_grpc.add_BrokerHistoryServiceServicer_to_server(revisions, server)
            management_pb2_grpc.add_ManagementServiceServicer_to_server(managed, server)

        yield await stack.enter_async_context(
            serving(
                host=config.bind_host,
                port=config.bind_port,
                credentials=credentials,
                policies={
                    name: access for each in SERVICERS for name, access in each.POLICIES.items()
                },
                services=[servicer.NAME for servicer in SERVICERS],
                register=register,
                health=health,
                drain_s=config.drain_s,
                refusals=refusals,
            )
        )


def _require_keys(needed: set[int], keys: EncryptionKeys, file: Path) -> None:
    """Raises `SystemExit` for a ring without a key that something was encrypted with."""
    missing = sorted(needed - keys.keys.keys())
    if missing:
        raise SystemExit(
            f"{file}: the database holds secrets under keys that are not in it: "
            f"{', '.join(map(str, missing))}. Put its backup back"
        )


if __name__ == "__main__":
    config = load(BrokerServiceConfig)
    log.configure("broker_service", config.log_level)
    probes = Probes()
    serve(probes, config.metrics_host, config.metrics_port)
    process.run(running(config, probes), probes)
