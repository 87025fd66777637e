"""The rollout of a fleet at the console: begin, widen, narrow, stop, complete."""

from typing import Any

from litestar import Response, Router, get, post

from chassis.errors import MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import rollouts
from gateway.administration.fleets import FleetId
from gateway.console import fleet_acts, fleets
from gateway.console.changes import seen_revision
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import see_other
from gateway.console.visitor import ConsoleRequest, permitted

FIELDS = ("broker_id", "percent", "salt")
MAX_CHARACTERS = 18


def percent_in(form: Form) -> float | int | str | None:
    """The percent as a number. A text that is none stays a text, so that the route refuses it."""
    text = form.text("percent").removesuffix("%").strip().replace(",", ".")
    is_number = text.replace(".", "", 1).isdigit() and text.isascii()
    return float(text) if is_number and len(text) <= MAX_CHARACTERS else form.number("percent")


@post(
    "/{fleet_id:str}/rollout",
    access=WithinFleets(Access.OPERATOR),
    action="rollout.set",
    status_code=200,
)
async def set_rollout(request: ConsoleRequest, fleet_id: FleetId) -> Response[Any]:
    """Begins a rollout, or takes it to another percent."""
    form = await form_of(request)
    values: dict[str, Any] = {"broker_id": form.number("broker_id"), "percent": percent_in(form)}
    if salt := form.text("salt"):
        values["salt"] = salt
    try:
        change = body_of(rollouts.set_rollout, values)
        await rollouts.set_rollout.fn(request, fleet_id, change, if_revision=seen_revision(form))
    except MooringError as error:
        return await fleets.refused(request, fleet_id, form, error, FIELDS)
    return see_other(f"{fleets.HOME}/{fleet_id}")


@get("/{fleet_id:str}/rollout/stop", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def stopping(request: ConsoleRequest, fleet_id: FleetId) -> Response[bytes]:
    """Says what stopping the rollout does, and asks."""
    await rollouts.get_rollout.fn(request, fleet_id)
    return await fleet_acts.asking(request, fleet_id, "rollout_stop.html")


@post(
    "/{fleet_id:str}/rollout/stop",
    access=WithinFleets(Access.OPERATOR),
    action="rollout.stop",
    status_code=200,
)
async def stop_rollout(request: ConsoleRequest, fleet_id: FleetId) -> Response[Any]:
    """Takes all devices back to the broker that they had before."""
    form = await form_of(request)
    try:
        await rollouts.stop_rollout.fn(request, fleet_id, if_revision=seen_revision(form))
    except MooringError as error:
        return await fleets.refused(request, fleet_id, form, error)
    return see_other(f"{fleets.HOME}/{fleet_id}")


@get("/{fleet_id:str}/rollout/complete", access=WithinFleets(Access.OPERATOR), guards=[permitted])
async def completing(request: ConsoleRequest, fleet_id: FleetId) -> Response[bytes]:
    """Says what completing the rollout does, and asks."""
    await rollouts.get_rollout.fn(request, fleet_id)
    return await fleet_acts.asking(request, fleet_id, "rollout_complete.html")


@post(
    "/{fleet_id:str}/rollout/complete",
    access=WithinFleets(Access.OPERATOR),
    action="rollout.complete",
    status_code=200,
)
async def complete_rollout(request: ConsoleRequest, fleet_id: FleetId) -> Response[Any]:
    """Makes the rollout's broker the fleet's own."""
    form = await form_of(request)
    try:
        await rollouts.complete_rollout.fn(request, fleet_id, if_revision=seen_revision(form))
    except MooringError as error:
        return await fleets.refused(request, fleet_id, form, error)
    return see_other(f"{fleets.HOME}/{fleet_id}")


ROUTES = Router(
    "/fleets",
    route_handlers=[set_rollout, stopping, stop_rollout, completing, complete_rollout],
)
