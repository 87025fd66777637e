"""The list of pools, and a new pool."""

from typing import Any

from litestar import Response, get, post

from chassis.errors import MooringError
from chassis.trust import Access, WithinFleets
from gateway.administration import pools
from gateway.administration.listing import Cursor
from gateway.console.broker_names import broker_names, names_of
from gateway.console.changes import (
    errors_of,
    ids_in,
    own_address,
    problem_in_place,
    typed_in,
)
from gateway.console.forms import body_of, form_of
from gateway.console.pages import page, see_other
from gateway.console.pools.fields import POLICIES
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of
from gateway.problems import Problem

ON_A_PAGE = 50
HOME = "/console/pools"
NEW = {"name": "", "description": "", "policy": "weighted", "is_sticky": "true", "broker_ids": ""}


@get("/", access=WithinFleets(Access.VIEWER))
async def pool_list(request: ConsoleRequest, cursor: Cursor = "") -> Response[bytes]:
    """A page of pools."""
    listed: Any = await pools.list_pools.fn(request, limit=ON_A_PAGE, cursor=cursor)
    members = {member.broker_id for pool in listed.items for member in pool.members}
    return page(
        request,
        "pools.html",
        pools=listed.items,
        brokers=await names_of(request, members),
        next_cursor=listed.next_cursor,
        may_create=visitor_of(request).may(pools.create_pool),
        address=own_address(request),
    )


async def _form(
    request: ConsoleRequest, texts: dict[str, str], problem: Problem | None = None
) -> Response[bytes]:
    return page(
        request,
        "pool_new.html",
        status=problem.status if problem else 200,
        texts=texts,
        brokers=await broker_names(request),
        policies=POLICIES,
        problem=problem,
        errors=errors_of(problem) if problem else {},
    )


@get("/new", access=Access.OPERATOR, guards=[permitted])
async def new_pool(request: ConsoleRequest) -> Response[bytes]:
    """The form for a new pool."""
    return await _form(request, NEW)


@post("/new", access=Access.OPERATOR, action="pool.create", status_code=200)
async def create_pool(request: ConsoleRequest) -> Response[Any]:
    """Makes a pool, whose members have equal weights."""
    form = await form_of(request)
    texts = {**typed_in(form, NEW), "is_sticky": "true" if form.is_ticked("is_sticky") else ""}
    try:
        values: dict[str, Any] = {name: texts[name] for name in ("name", "description")}
        values["policy"] = texts["policy"] or "weighted"
        values["is_sticky"] = bool(texts["is_sticky"])
        values["members"] = [{"broker_id": one} for one in ids_in(form, "broker_ids")]
        made: Any = await pools.create_pool.fn(request, body_of(pools.create_pool, values))
    except MooringError as error:
        return await _form(request, texts, problem_in_place(request, error))
    return see_other(f"{HOME}/{made.content.id}")
