"""The routes for people, and their common settings."""

import asyncio
import functools
from collections.abc import Sequence
from typing import Any, Self

from litestar import Litestar, Router
from litestar.datastructures import CacheControlHeader

from gateway import device_documentation, documentation, documentation_page, health
from gateway.access import policy_is_stated
from gateway.addresses import Network
from gateway.administration import (
    audit_log,
    broker_history,
    broker_secrets,
    broker_tests,
    broker_users,
    brokers,
    certificate_rotation,
    certificates,
    change_stream,
    device_counts,
    device_reports,
    devices,
    enforcement,
    expected_devices,
    fleets,
    imports,
    job_lists,
    jobs,
    pool_history,
    pool_users,
    pools,
    provisioning_keys,
    regions,
    resolution,
    rollouts,
    series,
    server_keys,
    service_accounts,
    sign_in_codes,
    system,
    timeline,
    tokens,
)
from gateway.administration.attempts import Attempts
from gateway.administration.caller import authenticate
from gateway.administration.refused import RefusedRequests, recording_refusals
from gateway.changes import Changes
from gateway.console import routes as console
from gateway.context import Context
from gateway.http_adapter import HttpApp, adapted
from gateway.limits import Limits
from gateway.problems import HANDLERS
from gateway.service_clients import ServiceClients

MAX_ADMINISTRATION_BODY_BYTES = 1024 * 1024


def app_of(
    services: ServiceClients,
    timeout_s: float,
    leaving: asyncio.Event,
    failures: Limits | None = None,
    proxies: Sequence[Network] = (),
    refused: RefusedRequests | None = None,
    changes: Changes | None = None,
    public_url: str = "",
    access_url: str = "",
) -> HttpApp:
    """The gateway as an ASGI application: all paths except devices' paths (`device_routes`).

    `leaving` is set when the gateway is about to stop. `failures` counts the attempts with invalid
    API tokens, by the client's address behind `proxies`. `refused` records the refusals by the
    gateway itself. `changes` are followed by streams. `public_url` is where people reach the
    gateway, and `access_url` where brokers ask about clients; they may be empty.
    """
    context = Context(
        services,
        timeout_s,
        leaving,
        Attempts(services, failures),
        proxies,
        refused.note if refused else None,
        changes or Changes(services, leaving),
        public_url=public_url,
        access_url=access_url,
    )
    return adapted(served(), context)


@functools.cache
def served() -> Litestar:
    """The Litestar application, which all gateways of a process share, each with its own `Context`:
    preparing the routes takes longer than the rest of a gateway's start.
    """
    return Litestar(
        [*_routers(), documentation_page.routes(document), console.ROUTES, console.START],
        exception_handlers=recording_refusals(HANDLERS),
        guards=[policy_is_stated],
        openapi_config=None,
        # Errors are logged where they become problems.
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


def document() -> bytes:
    """The OpenAPI document of all paths, as JSON."""
    types = device_documentation.TYPES
    return documentation.document(_routers(), device_documentation.PATHS, types)


class _Administration(Router):
    """A router that is registered once, so that no copy of all its routes is needed."""

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """Returns itself. Litestar copies each router that it registers."""
        return self


def _routers() -> list[Router]:
    return [
        _Administration(
            "/api/v1",
            route_handlers=[
                imports.ROUTES,
                brokers.ROUTES,
                broker_history.ROUTES,
                broker_tests.ROUTES,
                broker_users.ROUTES,
                broker_secrets.ROUTES,
                enforcement.ROUTES,
                pools.ROUTES,
                pool_history.ROUTES,
                pool_users.ROUTES,
                regions.ROUTES,
                device_counts.ROUTES,
                certificates.ROUTES,
                certificate_rotation.ROUTES,
                devices.ROUTES,
                timeline.ROUTES,
                device_reports.ROUTES,
                series.ROUTES,
                expected_devices.ROUTES,
                provisioning_keys.ROUTES,
                fleets.ROUTES,
                rollouts.ROUTES,
                resolution.ROUTES,
                jobs.ROUTES,
                job_lists.ROUTES,
                server_keys.ROUTES,
                tokens.ROUTES,
                sign_in_codes.ROUTES,
                service_accounts.ROUTES,
                audit_log.ROUTES,
                system.ROUTES,
                change_stream.ROUTES,
            ],
            guards=[authenticate],
            request_max_body_size=MAX_ADMINISTRATION_BODY_BYTES,
            cache_control=CacheControlHeader(no_store=True),
            security=[{"apiToken": []}],
        ),
        health.ROUTES,
    ]
