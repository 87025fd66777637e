"""Making a pool the default or not, and deleting it, after a page that says what will happen."""

from typing import Any, Literal

from litestar import Response, get, post
from litestar.params import FromPath

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import pool_users, pools
from gateway.administration.fields import PathId
from gateway.console.changes import seen_revision
from gateway.console.forms import form_of
from gateway.console.pages import problem_of, see_other
from gateway.console.pools.listing import HOME
from gateway.console.pools.shell import path_of, pool_of, pool_page
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem

Act = Literal["default", "clear", "delete"]


async def _confirmation(
    request: ConsoleRequest, pool_id: int, act: Act, problem: Problem | None = None
) -> Response[bytes]:
    return pool_page(
        request,
        "pool_act.html",
        await pool_of(request, pool_id),
        status=problem.status if problem else 200,
        act=act,
        usage=await pool_users.get_pool_usage.fn(request, pool_id),
        problem=problem,
    )


@get("/{pool_id:int}/confirm/{act:str}", access=Access.OPERATOR)
async def confirm(request: ConsoleRequest, pool_id: PathId, act: FromPath[Act]) -> Response[bytes]:
    """What the act will do, and the button that does it."""
    return await _confirmation(request, pool_id, act)


@post("/{pool_id:int}/default", access=Access.OPERATOR, action="pool.set_default", status_code=200)
async def make_default(request: ConsoleRequest, pool_id: PathId) -> Response[Any]:
    """Makes the pool the default."""
    form = await form_of(request)
    try:
        await pools.set_default_pool.fn(request, pool_id, if_revision=seen_revision(form))
    except MooringError as error:
        return await _confirmation(request, pool_id, "default", problem_of(request, error))
    return see_other(path_of(pool_id), saved="yes")


@post(
    "/{pool_id:int}/default/clear",
    access=Access.OPERATOR,
    action="pool.clear_default",
    status_code=200,
)
async def clear_default(request: ConsoleRequest, pool_id: PathId) -> Response[Any]:
    """Lets the pool be the default no longer."""
    form = await form_of(request)
    try:
        await pools.clear_default_pool.fn(request, pool_id, if_revision=seen_revision(form))
    except MooringError as error:
        return await _confirmation(request, pool_id, "clear", problem_of(request, error))
    return see_other(path_of(pool_id), saved="yes")


@post("/{pool_id:int}/delete", access=Access.OPERATOR, action="pool.delete", status_code=200)
async def delete_pool(request: ConsoleRequest, pool_id: PathId) -> Response[Any]:
    """Deletes the pool; its history stays."""
    form = await form_of(request)
    try:
        await pools.delete_pool.fn(request, pool_id, if_revision=seen_revision(form))
    except MooringError as error:
        return await _confirmation(request, pool_id, "delete", problem_of(request, error))
    return see_other(HOME)
