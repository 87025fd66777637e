"""Regions: the list, a new one, one with its settings, and how to delete one."""

import asyncio
from typing import Any, Literal

from litestar import Response, Router, get, post
from litestar.params import FromQuery

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import pools, regions
from gateway.administration.listing import MAX_LIMIT, Cursor
from gateway.administration.regions import RegionId
from gateway.console.broker_names import broker_names
from gateway.console.changes import (
    changed_in,
    changed_since,
    errors_of,
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
HOME = "/console/regions"
# An id of a region cannot begin like this path.
NEW = "/-/new"
COORDINATES = ("latitude", "longitude")
FIELDS = ("name", *COORDINATES, "serves")
MAX_CHARACTERS = 24


def texts_of(region: Any) -> dict[str, str]:
    """The fields of a region as its form has them."""
    serves = ""
    if region.pool_id is not None:
        serves = f"pool {region.pool_id}"
    elif region.mqtt_broker_id is not None:
        serves = f"broker {region.mqtt_broker_id}"
    coordinates = {
        name: "" if getattr(region, name) is None else f"{getattr(region, name):.10g}"
        for name in COORDINATES
    }
    return {"name": region.name, **coordinates, "serves": serves}


def _values(form: Form, names: list[str]) -> dict[str, Any]:
    """The named fields as members of the JSON body."""
    values: dict[str, Any] = {}
    for name in names:
        if name == "serves":
            kind, _, target = form.text(name).partition(" ")
            number = Form([("id", target)]).number("id")
            values["pool_id"] = number if kind == "pool" else None
            values["mqtt_broker_id"] = number if kind == "broker" else None
        elif name in COORDINATES:
            # They change together.
            values |= {each: _degrees(form.text(each)) for each in COORDINATES}
        else:
            values[name] = form.text(name)
    return values


def _degrees(text: str) -> float | str | None:
    """The text as a number. One that is none stays a text, so that the route refuses it."""
    plain = text.replace(",", ".").removesuffix("°").strip()
    digits = plain.removeprefix("-").replace(".", "", 1)
    is_number = digits.isascii() and digits.isdigit() and len(plain) <= MAX_CHARACTERS
    return float(plain) if is_number else text or None


async def _targets(request: ConsoleRequest) -> list[tuple[str, str]]:
    """What can serve a region: pools, then brokers."""
    listed: Any
    listed, brokers = await asyncio.gather(
        pools.list_pools.fn(request, limit=MAX_LIMIT), broker_names(request)
    )
    return [
        *((f"pool {pool.id}", f"pool {pool.name}") for pool in listed.items),
        *((f"broker {id_}", f"broker {name}") for id_, name in brokers.names.items()),
    ]


@get("/", access=Access.VIEWER)
async def region_list(request: ConsoleRequest, cursor: Cursor = "") -> Response[bytes]:
    """A page of regions."""
    listed, targets = await asyncio.gather(
        regions.list_regions.fn(request, limit=ON_A_PAGE, cursor=cursor), _targets(request)
    )
    return page(
        request,
        "regions.html",
        regions=listed.items,
        texts={region.id: texts_of(region) for region in listed.items},
        targets=dict(targets),
        next_cursor=listed.next_cursor,
        may_create=visitor_of(request).may(regions.create_region),
        address=own_address(request),
    )


async def _form(
    request: ConsoleRequest, texts: dict[str, str], problem: Problem | None = None
) -> Response[bytes]:
    return page(
        request,
        "region_new.html",
        status=problem.status if problem else 200,
        texts=texts,
        targets=await _targets(request),
        problem=problem,
        errors=errors_of(problem) if problem else {},
    )


@get(NEW, access=Access.OPERATOR, guards=[permitted])
async def new_region(request: ConsoleRequest) -> Response[bytes]:
    """The form for a new region."""
    return await _form(request, dict.fromkeys(("id", *FIELDS), ""))


@post("/", access=Access.OPERATOR, action="region.create", status_code=200)
async def create_region(request: ConsoleRequest) -> Response[Any]:
    """Makes a region."""
    form = await form_of(request)
    try:
        values = {"id": form.text("id"), **_values(form, list(FIELDS))}
        values = {name: value for name, value in values.items() if value is not None}
        made: Any = await regions.create_region.fn(request, body_of(regions.create_region, values))
    except MooringError as error:
        problem = problem_in_place(request, error)
        return await _form(request, typed_in(form, ("id", *FIELDS)), problem)
    return see_other(f"{HOME}/{made.content.id}")


async def _shown(
    request: ConsoleRequest,
    region_id: str,
    *,
    typed: dict[str, str] | None = None,
    problem: Problem | None = None,
    lost: Form | None = None,
    is_saved: bool = False,
    is_asked: bool = False,
) -> Response[bytes]:
    """The page of a region, with `problem` above it if a form was refused. If another person was
    first, `lost` is the form. With `is_asked`, the page asks before the region is deleted.
    """
    answer: Any
    answer, targets, names = await asyncio.gather(
        regions.get_region.fn(request, region_id), _targets(request), broker_names(request)
    )
    region = answer.content
    visitor = visitor_of(request)
    seen = texts_of(region)
    return page(
        request,
        "region_delete.html" if is_asked else "region.html",
        status=problem.status if problem else 200,
        region=region,
        texts={**seen, **(typed or {})},
        targets=targets,
        serves=dict(targets).get(seen["serves"], seen["serves"]),
        seen=seen,
        race=changed_since(lost, seen, typed or {}, names),
        is_typed=bool(typed),
        problem=problem,
        errors=errors_of(problem) if problem else {},
        is_saved=is_saved,
        may_change=visitor.may(regions.update_region),
    )


@get("/{region_id:str}", access=Access.VIEWER)
async def one_region(
    request: ConsoleRequest, region_id: RegionId, saved: FromQuery[Literal["", "yes"]] = ""
) -> Response[bytes]:
    """A region with its settings."""
    return await _shown(request, region_id, is_saved=bool(saved))


@post("/{region_id:str}", access=Access.OPERATOR, action="region.update", status_code=200)
async def update_region(request: ConsoleRequest, region_id: RegionId) -> Response[Any]:
    """Changes the settings that the person changed."""
    form = await form_of(request)
    names = changed_in(form, FIELDS)
    try:
        if values := _values(form, names):
            change = body_of(regions.update_region, values)
            revision = seen_revision(form)
            await regions.update_region.fn(request, region_id, change, if_revision=revision)
    except MooringError as error:
        problem, lost = problem_in_place(request, error), lost_in(form, error)
        typed = typed_in(form, names)
        return await _shown(request, region_id, typed=typed, problem=problem, lost=lost)
    return see_other(f"{HOME}/{region_id}", saved="yes")


@get("/{region_id:str}/delete", access=Access.OPERATOR, guards=[permitted])
async def deleting(request: ConsoleRequest, region_id: RegionId) -> Response[bytes]:
    """Says what deleting the region does, and asks."""
    return await _shown(request, region_id, is_asked=True)


@post("/{region_id:str}/delete", access=Access.OPERATOR, action="region.delete", status_code=200)
async def delete_region(request: ConsoleRequest, region_id: RegionId) -> Response[Any]:
    """Deletes the region."""
    form = await form_of(request)
    try:
        await regions.delete_region.fn(request, region_id, if_revision=seen_revision(form))
    except MooringError as error:
        problem, lost = problem_in_place(request, error), lost_in(form, error)
        return await _shown(request, region_id, problem=problem, lost=lost, is_asked=True)
    return see_other(HOME)


ROUTES = Router(
    "/regions",
    route_handlers=[
        region_list,
        new_region,
        create_region,
        one_region,
        update_region,
        deleting,
        delete_region,
    ],
)
