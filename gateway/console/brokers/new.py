"""A new broker."""

from typing import Any

from litestar import Response, get, post

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import brokers
from gateway.administration.brokers import DryRun
from gateway.console.brokers.fields import FIELDS, NAMES, NEW, TICKS, body, changed, typed
from gateway.console.brokers.settings import choices_of, field_errors
from gateway.console.brokers.shell import path_of
from gateway.console.forms import body_of, form_of
from gateway.console.pages import page, problem_of, see_other
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem

NEW_TICKS = (*TICKS, "is_active")


async def _page(
    request: ConsoleRequest,
    values: dict[str, Any],
    *,
    problem: Problem | None = None,
    status: int = 200,
    **more: Any,
) -> Response[bytes]:
    return page(
        request,
        "broker_new.html",
        status=status,
        values=NEW | values,
        choices=await choices_of(request, values),
        names=NAMES,
        problem=problem,
        errors=field_errors(problem),
        **{"warnings": [], "is_checked": False, **more},
    )


@get("/new", access=Access.OPERATOR)
async def new_broker(request: ConsoleRequest) -> Response[bytes]:
    """The form with the default values."""
    return await _page(request, {})


@post("/new", access=Access.OPERATOR, action="broker.create", status_code=200)
async def create_broker(request: ConsoleRequest, dry_run: DryRun = False) -> Response[Any]:
    """Creates the broker; with `dry_run` only says whether it could be."""
    form = await form_of(request)
    values = typed(form, NEW_TICKS)
    try:
        # What is left empty gets its default.
        given = body(form, changed(values, dict.fromkeys(FIELDS, "")))
        given["is_active"] = form.is_ticked("is_active")
        answer: Any = await brokers.create_broker.fn(
            request, data=body_of(brokers.create_broker, given), dry_run=dry_run
        )
    except MooringError as error:
        problem = problem_of(request, error)
        status = 200 if dry_run else problem.status
        return await _page(request, values, problem=problem, status=status)
    if dry_run:
        return await _page(request, values, warnings=answer.content.warnings, is_checked=True)
    return see_other(path_of(answer.content.id), saved="true")
