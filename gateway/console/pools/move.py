"""What names a pool, and moving it to another pool or to a broker."""

import asyncio
from typing import Any

from litestar import Response, get, post

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import pool_users, pools
from gateway.administration.fields import PathId
from gateway.administration.listing import MAX_LIMIT
from gateway.administration.pool_users import PoolMoved, PoolUsage
from gateway.console.broker_names import broker_names
from gateway.console.forms import Form, body_of, form_of
from gateway.console.pages import problem_of
from gateway.console.pools.shell import pool_of, pool_page
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem


async def _page(
    request: ConsoleRequest,
    pool_id: int,
    *,
    to: str = "",
    moved: PoolMoved | None = None,
    problem: Problem | None = None,
) -> Response[bytes]:
    listed: Any
    pool, usage, listed, brokers = await asyncio.gather(
        pool_of(request, pool_id),
        pool_users.get_pool_usage.fn(request, pool_id),
        pools.list_pools.fn(request, limit=MAX_LIMIT),
        broker_names(request),
    )
    return pool_page(
        request,
        "pool_move.html",
        pool,
        status=problem.status if problem else 200,
        numbers=_numbers(usage),
        targets=[
            *((f"pool {one.id}", f"pool {one.name}") for one in listed.items if one.id != pool_id),
            *((f"broker {id_}", f"broker {name}") for id_, name in brokers.active.items()),
        ],
        to=to,
        moved_numbers=_numbers(moved.moved) if moved else None,
        is_done=moved is not None and not any(_numbers(moved.left).values()),
        problem=problem,
    )


def _numbers(usage: PoolUsage) -> dict[str, int]:
    """The counts with words for people."""
    return {
        "pinned devices": usage.devices,
        "fleets whose pool it is": usage.fleets,
        "provisioning keys": usage.keys,
        "regions": usage.regions,
    }


@get("/{pool_id:int}/move", access=Access.OPERATOR)
async def move_page(request: ConsoleRequest, pool_id: PathId) -> Response[bytes]:
    """What names the pool, and where it can go."""
    return await _page(request, pool_id)


@post("/{pool_id:int}/move", access=Access.OPERATOR, action="pool_user.move", status_code=200)
async def move(request: ConsoleRequest, pool_id: PathId) -> Response[bytes]:
    """Moves as much as there is time for, and says what is left."""
    form = await form_of(request)
    to = form.text("to")
    kind, _, target = to.partition(" ")
    field = "to_pool_id" if kind == "pool" else "to_broker_id"
    try:
        given = {field: Form([(field, target)]).number(field)}
        moved: PoolMoved = await pool_users.move_pool_users.fn(
            request, pool_id, data=body_of(pool_users.move_pool_users, given)
        )
    except MooringError as error:
        return await _page(request, pool_id, to=to, problem=problem_of(request, error))
    return await _page(request, pool_id, to=to, moved=moved)
