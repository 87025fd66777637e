"""`python -m registry_service.access`: answers brokers, on a separate listener."""

import contextlib
from collections.abc import AsyncIterator

from chassis import log, process
from chassis.config import load
from chassis.database import engine_of, pool_of, require_schema
from chassis.http_limits import HttpLimits
from chassis.http_server import Address, serving
from chassis.listening import Listener
from chassis.probes import Probes, serve
from chassis.process_table import writer
from chassis.refusals import Refusals
from chassis.reporting import Reporter, reported
from registry_service.activity.recording import keep_events_written, write_all_events
from registry_service.activity.timeline.events import Events
from registry_service.admission.change_store import CHANNEL
from registry_service.admission.listener.answering import Answering
from registry_service.admission.listener.broker_handler import BrokerHandlers
from registry_service.admission.listener.config import AccessConfig
from registry_service.admission.listener.presence import Presence
from registry_service.admission.listener.reply_cache import ReplyCache
from registry_service.admission.listener.sessions import Sessions
from registry_service.admission.listener.store import AccessStore
from registry_service.admission.listener.subject_cache import Changes, SubjectCache
from registry_service.admission.listener.wrong_secrets import WrongSecrets
from registry_service.tables import SCHEMA_REVISION

GRACE_S = 5


@contextlib.asynccontextmanager
async def running(config: AccessConfig, probes: Probes | None = None) -> AsyncIterator[str]:
    """The whole process, until the block ends; yields its URL."""
    probes = probes or Probes()
    async with contextlib.AsyncExitStack() as stack:
        engine = engine_of(config.database_url, pool_size=1)
        stack.push_async_callback(engine.dispose)
        await require_schema(engine, SCHEMA_REVISION, role=config.database_role)
        await stack.enter_async_context(reported(Reporter([config], probes), writer(engine)))
        pool = await stack.enter_async_context(pool_of(config.database_url))
        store = AccessStore(pool)
        subjects = SubjectCache()
        listener = Listener(config.database_url, CHANNEL, [])
        sessions = Sessions()
        changes = Changes(store, listener, subjects, sessions)
        await changes.read()
        probes.ready_when(changes.readiness)
        await stack.enter_async_context(process.background(changes.keep_current()))
        presence = Presence(store, sessions)
        stack.push_async_callback(presence.write)
        await stack.enter_async_context(process.background(presence.keep_written()))
        events = Events()
        stack.push_async_callback(write_all_events, pool, events)
        await stack.enter_async_context(process.background(keep_events_written(pool, events)))
        answering = Answering(store, subjects, changes, sessions, session_s=config.session_s)
        stack.push_async_callback(answering.close)
        refusals = Refusals(engine)
        stack.push_async_callback(refusals.close)
        await stack.enter_async_context(process.background(refusals.keep_written()))
        address = Address(
            config.bind_host,
            config.bind_port,
            config.https_cert_file,
            config.https_key_file,
        )
        yield await stack.enter_async_context(
            serving(
                None,
                address,
                handlers=BrokerHandlers(
                    answering,
                    changes,
                    presence,
                    ReplyCache(subjects, changes, sessions),
                    WrongSecrets(refusals),
                    events,
                ),
                drain_s=config.drain_s,
                grace_s=GRACE_S,
                limits=HttpLimits(
                    max_connections=config.max_connections,
                    max_connections_per_host=config.max_connections_per_address,
                ),
            )
        )


if __name__ == "__main__":
    config = load(AccessConfig)
    log.configure("access", config.log_level)
    probes = Probes()
    serve(probes, config.metrics_host, config.metrics_port)
    process.run(running(config, probes), probes)
