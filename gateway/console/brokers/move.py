"""Moving everything that names a broker to another one."""

import asyncio
from typing import Any

from litestar import Response, get, post
from litestar.params import FromQuery

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import broker_users, brokers
from gateway.administration.broker_users import BrokerUsage, Moved
from gateway.administration.fields import PathId
from gateway.console.brokers.shell import broker_of, broker_page, counts_of
from gateway.console.forms import body_of, form_of
from gateway.console.pages import problem_of
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem

MAX_TARGETS = 500


async def _page(
    request: ConsoleRequest,
    broker_id: int,
    *,
    to: str = "",
    with_allowances: FromQuery[bool] = False,
    moved: Moved | None = None,
    problem: Problem | None = None,
) -> Response[bytes]:
    async def targets() -> Any:
        return await brokers.list_brokers.fn(request, limit=MAX_TARGETS, is_active=True)

    broker, usage, listed, counts = await asyncio.gather(
        broker_of(request, broker_id),
        broker_users.get_broker_usage.fn(request, broker_id),
        targets(),
        counts_of(request, broker_id),
    )
    found = [one for one in listed.items if one.id != broker_id]
    target = next((one for one in found if str(one.id) == to), None)
    return broker_page(
        request,
        "broker_move.html",
        broker,
        status=problem.status if problem else 200,
        usage=usage,
        counts=counts,
        targets=[(str(one.id), f"{one.name} (number {one.id})") for one in found],
        is_cut=listed.next_cursor is not None,
        to=to,
        target=target,
        target_counts=await counts_of(request, target.id) if target else None,
        with_allowances=with_allowances,
        moved=moved,
        is_done=moved is not None and not any(_numbers(moved.left).values()),
        numbers=_numbers(usage),
        moved_numbers=_numbers(moved.moved) if moved else {},
        left_numbers=_numbers(moved.left) if moved else {},
        problem=problem,
    )


def _numbers(usage: BrokerUsage) -> dict[str, int]:
    """The counts with words for people."""
    return {
        "pinned devices": usage.devices,
        "fleets whose broker it is": usage.fleets,
        "provisioning keys": usage.keys,
        "restricted fleets that may use it": usage.allowances,
        "expected devices": usage.expected_devices,
        "rollouts to it": usage.rollouts,
        "regions": usage.regions,
        "pools": usage.pools,
        "brokers whose backup it is": usage.backups,
    }


@get("/{broker_id:int}/move", access=Access.OPERATOR)
async def move_page(
    request: ConsoleRequest,
    broker_id: PathId,
    to: FromQuery[str] = "",
    allowances: FromQuery[bool] = False,
) -> Response[bytes]:
    """Chooses the other broker; with `to`, says what will be moved there."""
    return await _page(request, broker_id, to=to, with_allowances=allowances)


@post(
    "/{broker_id:int}/move",
    access=Access.OPERATOR,
    action="broker_user.move",
    status_code=200,
)
async def move(request: ConsoleRequest, broker_id: PathId) -> Response[bytes]:
    """Moves as much as there is time for, and says what is left."""
    form = await form_of(request)
    with_allowances = form.is_ticked("move_allowances")
    to = form.text("to_broker_id")
    try:
        given = {"to_broker_id": form.number("to_broker_id"), "move_allowances": with_allowances}
        moved: Moved = await broker_users.move_broker_users.fn(
            request, broker_id, data=body_of(broker_users.move_broker_users, given)
        )
    except MooringError as error:
        problem = problem_of(request, error)
        return await _page(
            request, broker_id, to=to, with_allowances=with_allowances, problem=problem
        )
    return await _page(request, broker_id, to=to, with_allowances=with_allowances, moved=moved)
