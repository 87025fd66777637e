"""Making a broker the default, taking it out of use, and deleting it: each after a page that says
in numbers what will happen.
"""

import asyncio
from typing import Any, Literal

from litestar import Response, get, post
from litestar.params import FromPath

from chassis.errors import InvalidInput, MooringError
from chassis.trust import Access
from gateway.administration import broker_users, brokers
from gateway.administration.fields import PathId
from gateway.console.brokers.shell import (
    broker_of,
    broker_page,
    counts_of,
    path_of,
)
from gateway.console.changes import seen_revision
from gateway.console.forms import body_of, form_of
from gateway.console.pages import problem_of, see_other
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem

Act = Literal["default", "deactivate", "activate", "delete"]


async def _confirmation(
    request: ConsoleRequest,
    broker_id: int,
    act: Act,
    *,
    problem: Problem | None = None,
    typed_name: str = "",
) -> Response[bytes]:
    """The page that says what an act will do. `problem` is why it was refused."""

    async def present_default() -> Any:
        listed: Any = await brokers.list_brokers.fn(request, limit=1, is_default=True)
        return next(iter(listed.items), None)

    broker, counts, usage, default = await asyncio.gather(
        broker_of(request, broker_id),
        counts_of(request, broker_id),
        broker_users.get_broker_usage.fn(request, broker_id),
        present_default(),
    )
    default_counts = await counts_of(request, default.id) if act == "default" and default else None
    return broker_page(
        request,
        "broker_act.html",
        broker,
        status=problem.status if problem else 200,
        act=act,
        counts=counts,
        usage=usage,
        default=default,
        default_counts=default_counts,
        problem=problem,
        typed_name=typed_name,
    )


@get("/{broker_id:int}/confirm/{act:str}", access=Access.OPERATOR)
async def confirm(
    request: ConsoleRequest, broker_id: PathId, act: FromPath[Act]
) -> Response[bytes]:
    """What the act will do, and the button that does it."""
    return await _confirmation(request, broker_id, act)


@post(
    "/{broker_id:int}/default",
    access=Access.OPERATOR,
    action="broker.set_default",
    status_code=200,
)
async def make_default(request: ConsoleRequest, broker_id: PathId) -> Response[Any]:
    """Makes the broker the default."""
    form = await form_of(request)
    try:
        await brokers.set_default_broker.fn(request, broker_id, if_revision=seen_revision(form))
    except MooringError as error:
        problem = problem_of(request, error)
        return await _confirmation(request, broker_id, "default", problem=problem)
    return see_other(path_of(broker_id), saved="true")


@post(
    "/{broker_id:int}/active",
    access=Access.OPERATOR,
    action="broker.update",
    status_code=200,
)
async def set_active(request: ConsoleRequest, broker_id: PathId) -> Response[Any]:
    """Takes the broker out of use, or back into use with `is_active`."""
    form = await form_of(request)
    is_active = form.is_ticked("is_active")
    try:
        await brokers.update_broker.fn(
            request,
            broker_id,
            data=body_of(brokers.update_broker, {"is_active": is_active}),
            if_revision=seen_revision(form),
        )
    except MooringError as error:
        act: Act = "activate" if is_active else "deactivate"
        return await _confirmation(request, broker_id, act, problem=problem_of(request, error))
    return see_other(path_of(broker_id), saved="true")


@post(
    "/{broker_id:int}/delete",
    access=Access.OPERATOR,
    action="broker.delete",
    status_code=200,
)
async def delete_broker(request: ConsoleRequest, broker_id: PathId) -> Response[Any]:
    """Deletes the broker, if its name was typed."""
    form = await form_of(request)
    broker = await broker_of(request, broker_id)
    try:
        if form.text("name") != broker.name.strip():
            raise InvalidInput("must be the name of the broker", field="name")
        await brokers.delete_broker.fn(request, broker_id, if_revision=seen_revision(form))
    except MooringError as error:
        return await _confirmation(
            request,
            broker_id,
            "delete",
            problem=problem_of(request, error),
            typed_name=form.text("name"),
        )
    return see_other("/console/brokers", deleted=str(broker_id))
