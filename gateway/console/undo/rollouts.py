"""Undoing the last wave of a rollout."""

import asyncio
import re
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.params import QueryParameter

from chassis.errors import InvalidInput, MooringError
from gateway.administration import device_counts, rollouts
from gateway.administration.fleets import FleetId
from gateway.console.fleets import fleet_of
from gateway.console.forms import body_of, form_of
from gateway.console.pages import see_other
from gateway.console.templates import counted
from gateway.console.undo.shown import (
    HOME,
    SHOWN_IN_PLACE,
    BrokerOrNone,
    ChangedSince,
    broker_in,
    undo_page,
)
from gateway.console.visitor import ConsoleRequest, permitted

Percent = Annotated[float, QueryParameter(ge=0, le=100)]
PERCENT = re.compile(r"\d{1,3}(\.\d{1,4})?", re.ASCII)
ALL_PERCENT = 100


@get("/rollout/{fleet_id:str}", access=rollouts.set_rollout.opt["access"], guards=[permitted])
async def confirm_rollout(
    request: ConsoleRequest,
    fleet_id: FleetId,
    broker_id: BrokerOrNone = 0,
    was: Percent = 0,
    to: Percent = 0,
) -> Response[bytes]:
    """How many devices would go back."""
    return await _rollout_page(request, fleet_id, broker_id, was, to)


async def _rollout_page(
    request: ConsoleRequest,
    fleet_id: str,
    broker_id: int,
    was: float,
    to: float,
    error: MooringError | None = None,
) -> Response[bytes]:
    counts: Any
    fleet, counts = await asyncio.gather(
        fleet_of(request, fleet_id),
        device_counts.get_fleet_device_counts.fn(request, fleet_id),
    )
    now, then = (round(counts.devices * percent / 100) for percent in (was, to))
    verb = "loses" if to < was else "gets"
    text = (
        f"The rollout reaches about {now:,} of {counted(counts.devices, 'device', 'devices')}; then"
        f" about {then:,}. Each {verb} its broker when it next asks."
    )
    return undo_page(
        request,
        f"the last wave of {fleet.name}",
        f"/console/undo/rollout/{fleet_id}",
        {"broker_id": broker_id, "was": was, "to": to},
        rows=[("percent", f"{was:g}", f"{to:g}")],
        text=text,
        error=error,
        is_current=_is_at(fleet.rollout, broker_id, was),
    )


def _is_at(rollout: Any, broker_id: int, percent: float) -> bool:
    return rollout is not None and (rollout.broker_id, rollout.percent) == (broker_id, percent)


@post(
    "/rollout/{fleet_id:str}",
    access=rollouts.set_rollout.opt["access"],
    action=rollouts.set_rollout.opt["action"],
    status_code=200,
)
async def undo_rollout(request: ConsoleRequest, fleet_id: FleetId) -> Response[Any]:
    """Takes a rollout to the percent before, unless it has changed again."""
    form = await form_of(request)
    broker_id = broker_in(form.number("broker_id"), "broker_id")
    was, to = _percent_in(form.text("was"), "was"), _percent_in(form.text("to"), "to")
    try:
        fleet = await fleet_of(request, fleet_id)
        if not _is_at(fleet.rollout, broker_id, was):
            raise ChangedSince
        body = body_of(rollouts.set_rollout, {"broker_id": broker_id, "percent": to})
        await rollouts.set_rollout.fn(request, fleet_id, body, if_revision=[fleet.revision])
    except SHOWN_IN_PLACE as error:
        return await _rollout_page(request, fleet_id, broker_id, was, to, error)
    return see_other(HOME)


def _percent_in(text: str, name: str) -> float:
    """The field of a form. Raises `InvalidInput`."""
    if not PERCENT.fullmatch(text) or not 0 <= float(text) <= ALL_PERCENT:
        raise InvalidInput("must be a number from 0 to 100", field=name)
    return float(text)
