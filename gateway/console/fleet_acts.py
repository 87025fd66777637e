"""What the console asks before it disables or deletes a fleet, and these acts."""

import asyncio
from typing import Any

from litestar import Response, Router, get, post

from chassis.errors import InvalidInput, LostRace, MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import device_counts, fleets
from gateway.administration.fleets import FleetId
from gateway.console.broker_names import broker_names
from gateway.console.changes import errors_of, problem_in_place, seen_revision
from gateway.console.fleets import HOME, fleet_of, refused, seen_of
from gateway.console.forms import body_of, form_of
from gateway.console.pages import page, see_other
from gateway.console.visitor import ConsoleRequest, permitted


async def asking(
    request: ConsoleRequest, fleet_id: str, template: str, *, status: int = 200, **values: Any
) -> Response[bytes]:
    """A page that says what an act does to the fleet's devices, and asks."""
    fleet, names, counts = await asyncio.gather(
        fleet_of(request, fleet_id),
        broker_names(request),
        device_counts.get_fleet_device_counts.fn(request, fleet_id),
    )
    return page(
        request,
        template,
        status=status,
        fleet=fleet,
        seen=seen_of(fleet),
        brokers=names,
        devices=counts.devices,
        told={count.mqtt_broker_id: count.devices for count in counts.told},
        **values,
    )


@get("/{fleet_id:str}/disable", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def disabling(request: ConsoleRequest, fleet_id: FleetId) -> Response[bytes]:
    """Says what disabling the fleet does, and asks."""
    return await asking(request, fleet_id, "fleet_disable.html")


@post(
    "/{fleet_id:str}/active",
    access=WithinFleets(Access.OPERATOR),
    action="fleet.update",
    status_code=200,
)
async def set_active(request: ConsoleRequest, fleet_id: FleetId) -> Response[Any]:
    """Enables or disables the fleet."""
    form = await form_of(request)
    change = body_of(fleets.update_fleet, {"is_active": form.text("is_active") == "true"})
    try:
        revision = seen_revision(form)
        await fleets.update_fleet.fn(request, fleet_id, change, if_revision=revision)
    except MooringError as error:
        return await refused(request, fleet_id, form, error)
    return see_other(f"{HOME}/{fleet_id}")


@get("/{fleet_id:str}/delete", access=Access.OPERATOR, guards=[permitted])
async def deleting(request: ConsoleRequest, fleet_id: FleetId) -> Response[bytes]:
    """Says what deleting the fleet does, and asks."""
    return await asking(request, fleet_id, "fleet_delete.html", problem=None, typed="", errors={})


@post("/{fleet_id:str}/delete", access=Access.OPERATOR, action="fleet.delete", status_code=200)
async def delete_fleet(request: ConsoleRequest, fleet_id: FleetId) -> Response[Any]:
    """Deletes the fleet; with its devices and keys only if the person has typed its id."""
    form = await form_of(request)
    typed = form.text("typed")
    try:
        if typed not in ("", fleet_id):
            raise InvalidInput("is not the id of this fleet", field="typed")
        revision = seen_revision(form)
        await fleets.delete_fleet.fn(
            request, fleet_id, if_revision=revision, with_devices=bool(typed)
        )
    except LostRace as error:
        return await refused(request, fleet_id, form, error)
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await asking(
            request,
            fleet_id,
            "fleet_delete.html",
            status=problem.status,
            problem=problem,
            typed=typed,
            errors=errors_of(problem),
        )
    return see_other(HOME)


ROUTES = Router("/fleets", route_handlers=[disabling, set_active, deleting, delete_fleet])
