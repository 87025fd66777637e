"""Fleets: the list, a new one, one with its settings, and how to disable or delete one."""

import asyncio
from collections.abc import Iterable
from typing import Any, Literal

from litestar import Response, Router, get, post
from litestar.params import FromQuery

from chassis.errors import MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import device_counts, fleets, provisioning_keys, rollouts
from gateway.administration.fleets import FleetId
from gateway.administration.listing import Cursor
from gateway.console.broker_names import broker_names
from gateway.console.changes import (
    changed_in,
    changed_since,
    errors_of,
    ids_in,
    lost_in,
    own_address,
    problem_in_place,
    seen_revision,
    typed_in,
)
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import page, see_other
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of
from gateway.problems import Problem

ON_A_PAGE = 50
FIELDS = ("name", "mqtt_broker_id", "pool_id", "is_restricted", "allowed_broker_ids", "uuid_prefix")
# A person who is restricted to fleets does not change these.
RESTRICTIONS = frozenset({"is_restricted", "allowed_broker_ids", "uuid_prefix"})
HOME = "/console/fleets"
# The percents that a rollout usually goes through.
WAVES = (1, 10, 50, 100)
# An id of a fleet cannot begin like this path.
NEW = "/-/new"


def texts_of(fleet: Any) -> dict[str, str]:
    """The fields of a fleet as its form has them."""
    return {
        "name": fleet.name,
        "mqtt_broker_id": "" if fleet.mqtt_broker_id is None else str(fleet.mqtt_broker_id),
        "pool_id": "" if fleet.pool_id is None else str(fleet.pool_id),
        "is_restricted": "" if fleet.allowed_broker_ids is None else "true",
        "allowed_broker_ids": "\n".join(map(str, sorted(fleet.allowed_broker_ids or []))),
        "uuid_prefix": fleet.uuid_prefix or "",
    }


def seen_of(fleet: Any) -> dict[str, str]:
    """What the pages of a fleet show of it, to say later what has changed since."""
    rollout = fleet.rollout
    return {
        **texts_of(fleet),
        "is_active": "true" if fleet.is_active else "",
        "rollout": f"{rollout.percent:g} % to broker {rollout.broker_id}" if rollout else "",
    }


def _values(form: Form, names: Iterable[str]) -> dict[str, Any]:
    """The named fields as members of the JSON body."""
    values: dict[str, Any] = {}
    for name in names:
        match name:
            case "mqtt_broker_id" | "pool_id":
                values[name] = form.number(name)
            case "is_restricted" | "allowed_broker_ids":
                is_restricted = form.is_ticked("is_restricted")
                ids = ids_in(form, "allowed_broker_ids")
                values["allowed_broker_ids"] = ids if is_restricted else None
            case "uuid_prefix":
                values[name] = form.text(name) or None
            case _:
                values[name] = form.text(name)
    return values


async def fleet_of(request: ConsoleRequest, fleet_id: str) -> Any:
    """The fleet as it is now. Raises what the JSON route raises."""
    answer: Any = await fleets.get_fleet.fn(request, fleet_id)
    return answer.content


@get("/", access=WithinFleets(Access.VIEWER))
async def fleet_list(
    request: ConsoleRequest,
    cursor: Cursor = "",
    has_rollout: FromQuery[Literal["", "true", "false"]] = "",
) -> Response[bytes]:
    """A page of fleets; all, or those with or without a rollout."""
    listed, names = await asyncio.gather(
        fleets.list_fleets.fn(
            request,
            limit=ON_A_PAGE,
            cursor=cursor,
            has_rollout=has_rollout == "true" if has_rollout else None,
        ),
        broker_names(request),
    )
    return page(
        request,
        "fleets.html",
        fleets=listed.items,
        brokers=names,
        next_cursor=listed.next_cursor,
        has_rollout=has_rollout,
        may_create=visitor_of(request).may(fleets.create_fleet),
        address=own_address(request),
    )


async def _form(
    request: ConsoleRequest, texts: dict[str, str], problem: Problem | None = None
) -> Response[bytes]:
    return page(
        request,
        "fleet_new.html",
        status=problem.status if problem else 200,
        texts=texts,
        brokers=await broker_names(request),
        problem=problem,
        errors=errors_of(problem) if problem else {},
    )


@get(NEW, access=Access.OPERATOR, guards=[permitted])
async def new_fleet(request: ConsoleRequest) -> Response[bytes]:
    """The form for a new fleet."""
    return await _form(request, dict.fromkeys(("id", *FIELDS), ""))


@post("/", access=Access.OPERATOR, action="fleet.create", status_code=200)
async def create_fleet(request: ConsoleRequest) -> Response[Any]:
    """Makes a fleet."""
    form = await form_of(request)
    try:
        values = {"id": form.text("id"), **_values(form, FIELDS)}
        # Without a name, a fleet is called like its id.
        values = {name: value for name, value in values.items() if value not in ("", None)}
        made = await fleets.create_fleet.fn(request, body_of(fleets.create_fleet, values))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _form(request, typed_in(form, ("id", *FIELDS)), problem)
    return see_other(f"{HOME}/{made.content.id}")


async def shown(
    request: ConsoleRequest,
    fleet_id: str,
    *,
    typed: dict[str, str] | None = None,
    problem: Problem | None = None,
    lost: Form | None = None,
    is_saved: bool = False,
) -> Response[bytes]:
    """The page of a fleet, with `problem` above it if a form was refused. If another person was
    first, `lost` is the form.
    """
    fleet, names, counts = await asyncio.gather(
        fleet_of(request, fleet_id),
        broker_names(request),
        device_counts.get_fleet_device_counts.fn(request, fleet_id),
    )
    visitor = visitor_of(request)
    may_restrict = visitor.may(fleets.create_fleet)
    was, seen = texts_of(fleet), seen_of(fleet)
    told = {count.mqtt_broker_id: count.devices for count in counts.told}
    return page(
        request,
        "fleet.html",
        status=problem.status if problem else 200,
        fleet=fleet,
        brokers=names,
        devices=counts.devices,
        told=counts.told,
        # Devices that the rollout reaches by now, about; and those that have got its broker.
        reached=round(counts.devices * fleet.rollout.percent / 100) if fleet.rollout else 0,
        arrived=told.get(fleet.rollout.broker_id, 0) if fleet.rollout else 0,
        texts={"broker_id": "", "percent": "", "salt": "", **was, **(typed or {})},
        waves=WAVES,
        was=was,
        # A form without a field must not have its value either, or the field would be cleared.
        seen={name: seen[name] for name in seen if may_restrict or name not in RESTRICTIONS},
        race=changed_since(lost, seen, typed or {}, names),
        is_typed=bool(typed),
        problem=problem,
        errors=errors_of(problem) if problem else {},
        is_saved=is_saved,
        may_change=visitor.may(fleets.update_fleet),
        may_restrict=may_restrict,
        may_roll_out=visitor.may(rollouts.set_rollout),
        may_delete=visitor.may(fleets.delete_fleet),
        may_make_keys=visitor.may(provisioning_keys.create_provisioning_key),
    )


async def refused(
    request: ConsoleRequest,
    fleet_id: str,
    form: Form,
    error: MooringError,
    names: Iterable[str] = (),
) -> Response[bytes]:
    """The page of a fleet after a form was refused, with what was typed into the fields `names`.
    Raises `error` again if it needs a page of its own.
    """
    problem = problem_in_place(request, error)
    typed = typed_in(form, names)
    return await shown(request, fleet_id, typed=typed, problem=problem, lost=lost_in(form, error))


@get("/{fleet_id:str}", access=WithinFleets(Access.VIEWER))
async def one_fleet(
    request: ConsoleRequest, fleet_id: FleetId, saved: FromQuery[Literal["", "yes"]] = ""
) -> Response[bytes]:
    """A fleet with its settings, its rollout and its devices."""
    return await shown(request, fleet_id, is_saved=bool(saved))


@post(
    "/{fleet_id:str}",
    access=WithinFleets(Access.OPERATOR),
    action="fleet.update",
    status_code=200,
)
async def update_fleet(request: ConsoleRequest, fleet_id: FleetId) -> Response[Any]:
    """Changes the settings that the person changed."""
    form = await form_of(request)
    try:
        values = _values(form, changed_in(form, FIELDS))
        if values:
            change = body_of(fleets.update_fleet, values)
            revision = seen_revision(form)
            await fleets.update_fleet.fn(request, fleet_id, change, if_revision=revision)
    except MooringError as error:
        return await refused(request, fleet_id, form, error, changed_in(form, FIELDS))
    return see_other(f"{HOME}/{fleet_id}", saved="yes")


ROUTES = Router(
    "/fleets",
    route_handlers=[
        fleet_list,
        new_fleet,
        create_fleet,
        one_fleet,
        update_fleet,
    ],
)
