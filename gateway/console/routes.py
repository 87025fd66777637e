"""The routes of the console, and `/`, which leads to it."""

from litestar import Response, Router, get

from chassis.trust import Access
from gateway.console import (
    audit_log,
    certificates,
    change_stream,
    device,
    device_changes,
    device_counts,
    devices,
    expected_devices,
    fleet_acts,
    fleets,
    imports,
    job,
    job_changes,
    jobs,
    menu,
    overview,
    provisioning_keys,
    regions,
    rollouts,
    rotations,
    server_keys,
    service_accounts,
    sign_in,
    system,
    tokens,
)
from gateway.console.assets import asset
from gateway.console.brokers import routes as brokers
from gateway.console.pages import ERROR_PAGES, see_other
from gateway.console.pools import routes as pools
from gateway.console.search import routes as search
from gateway.console.undo import routes as undo
from gateway.console.visitor import signed_in

# Of forms and of files that are imported through one.
MAX_BODY_BYTES = 8 * 1024 * 1024

ROUTES = Router(
    "/console",
    route_handlers=[
        asset,
        sign_in.OPEN_ROUTES,
        Router(
            "/",
            route_handlers=[
                sign_in.sign_out,
                overview.overview,
                search.ROUTES,
                menu.menu,
                menu.missing,
                change_stream.page_changes,
                brokers.ROUTES,
                pools.ROUTES,
                regions.ROUTES,
                fleets.ROUTES,
                fleet_acts.ROUTES,
                rollouts.ROUTES,
                provisioning_keys.ROUTES,
                audit_log.ROUTES,
                tokens.ROUTES,
                service_accounts.ROUTES,
                server_keys.ROUTES,
                system.ROUTES,
                devices.ROUTES,
                device_counts.ROUTES,
                device.ROUTES,
                device_changes.ROUTES,
                jobs.ROUTES,
                job.ROUTES,
                job_changes.ROUTES,
                expected_devices.ROUTES,
                imports.ROUTES,
                certificates.ROUTES,
                rotations.ROUTES,
                undo.ROUTES,
            ],
            guards=[signed_in],
        ),
    ],
    exception_handlers=ERROR_PAGES,
    request_max_body_size=MAX_BODY_BYTES,
    include_in_schema=False,
)


@get("/", access=Access.OPEN)
async def start() -> Response[None]:
    """Leads to the console."""
    return see_other("/console")


START = Router("/", route_handlers=[start], include_in_schema=False)
