"""`python -m gateway`: the gateway as a process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from chassis import log, process
from chassis.config import load
from chassis.http_limits import HttpLimits
from chassis.http_server import Address, serving
from chassis.probes import Probes, serve
from chassis.reporting import Reporter, reported
from gateway.administration.refused import RefusedRequests
from gateway.app import app_of
from gateway.changes import Changes
from gateway.config import GatewayConfig
from gateway.device_calls import DeviceCalls
from gateway.device_routes import DeviceRoutes
from gateway.health import readiness
from gateway.limits import Limits
from gateway.problems import unread
from gateway.refusal_counts import RefusalCounts
from gateway.report import write_report
from gateway.service_clients import ServiceClients

# How long a stop waits until answers are sent.
ANSWER_S = 0.5
TOO_MANY_FAILED = "too many attempts with tokens that are not valid"


@contextlib.asynccontextmanager
async def running(config: GatewayConfig, probes: Probes | None = None) -> AsyncIterator[str]:
    """The whole gateway, until the block ends; yields its URL."""
    async with contextlib.AsyncExitStack() as stack:
        services = ServiceClients(config)
        stack.push_async_callback(services.close)
        leaving = asyncio.Event()
        probes = probes or Probes()
        probes.ready_when(partial(readiness, services))
        write = partial(write_report, services)
        await stack.enter_async_context(reported(Reporter([config], probes), write))
        calls = DeviceCalls(
            services,
            config.request_timeout_s,
            leaving,
            stop_within_s=config.drain_s + config.shutdown_grace_s - ANSWER_S,
        )
        stack.push_async_callback(calls.close)
        limits = Limits.of(config.limit_per_key, config.limit_per_address)
        refusals = RefusalCounts(services)
        stack.push_async_callback(refusals.send)
        await stack.enter_async_context(process.background(refusals.keep_sent()))
        routes = DeviceRoutes(calls, limits, config.trusted_proxies, refusals.note)
        failures = Limits.of(
            config.limit_failed_per_prefix,
            config.limit_failed_per_address,
            key_fault=TOO_MANY_FAILED,
            address_fault=TOO_MANY_FAILED,
        )
        changes = Changes(services, leaving)
        stack.push_async_callback(changes.close)
        refused = RefusedRequests()
        stack.push_async_callback(refused.close)
        app = app_of(
            services,
            config.request_timeout_s,
            leaving,
            failures,
            config.trusted_proxies,
            refused,
            changes,
            public_url=config.public_url.rstrip("/"),
            access_url=config.access_url.rstrip("/"),
        )
        address = Address(
            config.bind_host,
            config.bind_port,
            config.https_cert_file,
            config.https_key_file,
        )
        yield await stack.enter_async_context(
            serving(
                app,
                address,
                # Devices' requests are served without `app`.
                handlers=routes,
                drain_s=config.drain_s,
                grace_s=config.shutdown_grace_s,
                leaving=leaving,
                limits=HttpLimits(
                    max_connections=config.max_connections,
                    max_connections_per_host=config.max_connections_per_address,
                ),
                proxies=config.trusted_proxies,
                refusal=unread,
            )
        )


if __name__ == "__main__":
    config = load(GatewayConfig)
    log.configure("gateway", config.log_level)
    probes = Probes()
    serve(probes, config.metrics_host, config.metrics_port)
    process.run(running(config, probes), probes)
