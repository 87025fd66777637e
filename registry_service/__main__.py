"""`python -m registry_service`: the registry service as a process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncEngine

from chassis import log, process
from chassis.client import ServiceClient
from chassis.config import load
from chassis.database import engine_of, forgetting, is_reachable, pool_of, require_schema
from chassis.listening import Listener
from chassis.probes import Probes, serve
from chassis.process_table import writer
from chassis.refusals import Refusals
from chassis.reloaded import Reloaded
from chassis.reporting import Reporter, reported
from chassis.server import Health, serving
from chassis.tally import Tally
from chassis.tickets import SigningKeys
from chassis.trust import Credentials
from registry_service.activity.recording import Activity
from registry_service.activity.series.servicer import SeriesServicer
from registry_service.activity.series.store import SeriesStore
from registry_service.activity.timeline.servicer import TimelineServicer
from registry_service.activity.timeline.store import TimelineStore
from registry_service.administration.broker_secrets.servicer import BrokerSecretServicer
from registry_service.administration.broker_secrets.store import BrokerSecretStore
from registry_service.administration.broker_users.servicer import BrokerUserServicer
from registry_service.administration.broker_users.store import BrokerUserStore
from registry_service.administration.devices.cursors import Cursors
from registry_service.administration.devices.import_store import ImportStore
from registry_service.administration.devices.search_store import SearchStore
from registry_service.administration.devices.servicer import DeviceServicer
from registry_service.administration.devices.store import SHOWN, DeviceStore
from registry_service.administration.expected_devices.servicer import ExpectedDeviceServicer
from registry_service.administration.expected_devices.store import ExpectedDeviceStore
from registry_service.administration.fleets.removal_store import FleetRemovalStore
from registry_service.administration.fleets.servicer import FleetServicer
from registry_service.administration.fleets.store import FleetStore
from registry_service.administration.pool_users.servicer import PoolUserServicer
from registry_service.administration.pool_users.store import PoolUserStore
from registry_service.administration.provisioning_keys.servicer import ProvisioningKeyServicer
from registry_service.administration.provisioning_keys.store import ProvisioningKeyStore
from registry_service.administration.rollouts.servicer import RolloutServicer
from registry_service.administration.rollouts.store import RolloutStore
from registry_service.administration.server_keys.servicer import ServerKeyServicer
from registry_service.administration.server_keys.store import ServerKeyStore
from registry_service.administration.service_accounts.servicer import ServiceAccountServicer
from registry_service.administration.service_accounts.store import ServiceAccountStore
from registry_service.administration.sessions.servicer import SessionServicer
from registry_service.administration.sessions.store import SessionStore
from registry_service.administration.tokens.last_use import LastUse
from registry_service.administration.tokens.servicer import TokenServicer
from registry_service.administration.tokens.store import CHANNEL, TokenStore
from registry_service.administration.tokens.token_cache import TokenCache
from registry_service.admission.reconciler.held import Held
from registry_service.admission.reconciler.held_store import HELD_CHANNEL, HeldStore
from registry_service.admission.reconciler.servicer import EnforcementServicer
from registry_service.admission.reconciler.store import EnforcementStore
from registry_service.admission.reconciler.waking import Waking
from registry_service.audit.servicer import AuditServicer
from registry_service.audit.store import AuditStore
from registry_service.bulk.jobs.checking import Destinations
from registry_service.bulk.jobs.servicer import JobServicer
from registry_service.bulk.jobs.store import JobStore
from registry_service.config import RegistryServiceConfig
from registry_service.credentials import KeyRing
from registry_service.provisioning.answer import AnswerComposer
from registry_service.provisioning.connections import Connections
from registry_service.provisioning.guesses import PERIOD_S, Guesses
from registry_service.provisioning.placements import Placements
from registry_service.provisioning.registrar import Registrar
from registry_service.provisioning.servicer import RegistrationServicer
from registry_service.provisioning.store import RegistrationStore
from registry_service.reports.servicer import ReportServicer
from registry_service.reports.store import ReportStore
from registry_service.system.change_store import ChangeStore
from registry_service.system.process_store import ProcessStore
from registry_service.system.servicer import SystemServicer
from registry_service.tables import SCHEMA_REVISION

HEALTH_CHECK_S = 1.0


@contextlib.asynccontextmanager
async def running(
    config: RegistryServiceConfig, probes: Probes | None = None
) -> AsyncIterator[int]:
    """The whole service, until the block ends; yields its port."""
    ring = KeyRing.read(config.server_keys_file)
    signing_keys = Reloaded(config.ticket_keys_file, SigningKeys.read)
    credentials = Credentials.of(config, lambda: signing_keys.value.public)
    probes = probes or Probes()
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(config.database_url)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        write = writer(engine)
        await stack.enter_async_context(reported(Reporter([config], probes), write))
        refusals = Refusals(engine)
        stack.push_async_callback(refusals.close)
        await stack.enter_async_context(process.background(refusals.keep_written()))
        broker_service = ServiceClient(config.broker_service_address, credentials)
        stack.push_async_callback(broker_service.close)

        pool = await stack.enter_async_context(pool_of(config.database_url))
        store = RegistrationStore(pool, config.previous_password_s)
        placements = Placements(broker_service, timeout_s=config.broker_timeout_s)
        composer = AnswerComposer(
            config.mqtt_broker_url,
            config.refresh_after_s,
            config.stopgap_refresh_after_s,
        )
        # A separate object has a limit of its own, so that refused devices do not use up the lines
        # for refused people.
        device_refusals = Refusals(engine, Tally(hold_s=PERIOD_S))
        stack.push_async_callback(device_refusals.close)
        await stack.enter_async_context(process.background(device_refusals.keep_written()))
        guesses = Guesses(pool, device_refusals)
        await stack.enter_async_context(process.background(guesses.keep_exchanging()))
        activity = Activity(pool)
        stack.push_async_callback(activity.close)
        await stack.enter_async_context(process.background(activity.keep_counts_written()))
        await stack.enter_async_context(process.background(activity.keep_events_written()))
        waking = Waking(pool)
        stack.push_async_callback(waking.close)
        registering = RegistrationServicer(
            Registrar(store, placements, ring, composer, guesses, activity),
            Connections(store, placements, ring, composer, guesses, activity),
            config.mqtt_broker_url,
            waking.soon,
            activity,
        )
        stack.push_async_callback(registering.close)
        reporting = ReportServicer(ReportStore(engine, pool), store, ring, guesses, activity)
        stack.push_async_callback(reporting.close)
        held = Held(HeldStore(engine), Listener(config.database_url, HELD_CHANNEL, []))
        stack.push_async_callback(held.close)
        await stack.enter_async_context(process.background(held.keep_hearing()))

        token_store = TokenStore(engine)
        listener = Listener(config.database_url, CHANNEL, [forgetting(engine)])
        token_cache = TokenCache(token_store, listener)
        await stack.enter_async_context(process.background(token_cache.keep_current()))
        await token_cache.begun()
        last_use = LastUse(token_store.note_use)
        stack.push_async_callback(last_use.close)
        await stack.enter_async_context(process.background(last_use.keep_writing()))

        # All services of this process; their methods state the policies.
        servicers = [
            registering,
            reporting,
            DeviceServicer(
                DeviceStore(engine),
                SearchStore(engine, SHOWN),
                Cursors(ring),
                ImportStore(engine),
                activity.credentials_revoked,
            ),
            ProvisioningKeyServicer(ProvisioningKeyStore(engine)),
            ExpectedDeviceServicer(ExpectedDeviceStore(engine)),
            FleetServicer(FleetStore(engine), FleetRemovalStore(engine)),
            RolloutServicer(RolloutStore(engine), FleetStore(engine)),
            TokenServicer(token_store, token_cache, last_use, lambda: signing_keys.value),
            SessionServicer(
                SessionStore(
                    engine, idle_s=config.session_idle_s, longest_s=config.session_longest_s
                ),
                last_use,
                lambda: signing_keys.value,
                idle_s=config.session_idle_s,
                longest_s=config.session_longest_s,
            ),
            BrokerUserServicer(BrokerUserStore(engine)),
            PoolUserServicer(PoolUserStore(engine)),
            BrokerSecretServicer(BrokerSecretStore(engine)),
            ServiceAccountServicer(ServiceAccountStore(engine)),
            EnforcementServicer(EnforcementStore(engine), held),
            JobServicer(JobStore(engine), Destinations(broker_service)),
            ServerKeyServicer(ServerKeyStore(engine), ring),
            AuditServicer(AuditStore(engine), refusals),
            SeriesServicer(SeriesStore(engine)),
            TimelineServicer(TimelineStore(engine)),
            SystemServicer(ProcessStore(engine), ChangeStore(pool), write),
        ]
        # The check has its own connection: a busy pool does not mean that the database is down.
        watched = engine_of(config.database_url, pool_size=1)
        stack.push_async_callback(watched.dispose)
        health = Health()
        probes.ready_when(health.readiness)
        await health.say("", is_serving=True)
        await stack.enter_async_context(process.background(_watch(health, watched, broker_service)))
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


async def _watch(health: Health, engine: AsyncEngine, broker_service: ServiceClient) -> None:
    """Checks the dependencies of the service; without the database it cannot answer any call."""
    while True:
        has_database, has_broker_service = await asyncio.gather(
            is_reachable(engine), broker_service.is_serving()
        )
        await health.say("", is_serving=has_database)
        await health.say("database", is_serving=has_database)
        await health.say("broker_service", is_serving=has_broker_service)
        await asyncio.sleep(HEALTH_CHECK_S)


if __name__ == "__main__":
    config = load(RegistryServiceConfig)
    log.configure("registry_service", config.log_level)
    probes = Probes()
    serve(probes, config.metrics_host, config.metrics_port)
    process.run(running(config, probes), probes)
