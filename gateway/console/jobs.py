"""Jobs: a list, and a new one for devices that a person ticked, that match conditions, or of a
list.
"""

import asyncio
from typing import Annotated, Any

from litestar import Response, Router, get, post
from litestar.params import QueryParameter

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import job_lists, jobs
from gateway.administration.device_lists import WANTED, Wanted, count_devices
from gateway.administration.job_types import STATES as STATE_NAMES
from gateway.administration.listing import Cursor
from gateway.console.broker_names import BrokerNames, broker_names
from gateway.console.changes import errors_of, own_address, problem_in_place
from gateway.console.device_conditions import Conditions, in_words
from gateway.console.forms import Form, body_of, form_of
from gateway.console.job_words import STATES, devices_in_words, purpose
from gateway.console.pages import page, see_other
from gateway.console.pasted import stream_of, type_of
from gateway.console.visitor import ConsoleRequest, permitted, visitor_of
from gateway.problems import Problem
from gateway.uploads import CSV

ON_A_PAGE = 50
# More are not ticked on one page.
MAX_TICKED = 500


@get("/", access=Access.VIEWER)
async def job_list(
    request: ConsoleRequest,
    cursor: Cursor = "",
    in_state: Annotated[str, QueryParameter(name="state")] = "",
) -> Response[bytes]:
    """The jobs, the newest first."""
    listed, names = await asyncio.gather(
        jobs.list_jobs.fn(request, limit=ON_A_PAGE, cursor=cursor, in_state=in_state),
        broker_names(request),
    )
    rows = [
        {"job": job, "purpose": purpose(job, names), "devices": devices_in_words(job, names)}
        for job in listed.items
    ]
    return page(
        request,
        "jobs.html",
        rows=rows,
        next_cursor=listed.next_cursor,
        in_state=in_state,
        states=STATES,
        state_names=STATE_NAMES,
        address=own_address(request),
        may_create=visitor_of(request).may(jobs.create_job),
    )


@get("/new", access=Access.OPERATOR, guards=[permitted], dependencies=WANTED)
async def new_job_page(
    request: ConsoleRequest,
    wanted: Wanted,
    uuid: Annotated[list[str] | None, QueryParameter(max_items=MAX_TICKED)] = None,
    has_list: Annotated[bool, QueryParameter(name="list")] = False,
) -> Response[bytes]:
    """The form. Its devices are those ticked, those of a list, or those of the conditions."""
    conditions = Conditions.of(request.query_params.multi_items())
    if uuid or has_list:
        counted, names = None, await broker_names(request)
    else:
        counted, names = await asyncio.gather(
            count_devices.fn(request, wanted), broker_names(request)
        )
    return _form(
        request, names, conditions=conditions, uuids=uuid or [], has_list=has_list, count=counted
    )


def _form(
    request: ConsoleRequest,
    names: BrokerNames,
    *,
    conditions: Conditions,
    uuids: list[str],
    has_list: bool,
    count: Any = None,
    problem: Problem | None = None,
    typed: dict[str, str] | None = None,
) -> Response[bytes]:
    return page(
        request,
        "job_new.html",
        status=problem.status if problem else 200,
        conditions=conditions,
        words=[in_words(name, value, names) for name, value in conditions.pairs],
        uuids=uuids,
        has_list=has_list,
        count=count,
        brokers=names,
        problem=problem,
        errors=errors_of(problem) if problem else {},
        typed=typed or {},
    )


@post("/", access=Access.OPERATOR, action="job.create", status_code=200)
async def create_job(request: ConsoleRequest) -> Response[Any]:
    """Creates a draft, with its list if it has one. Nothing changes before it is started."""
    form = await form_of(request)
    conditions = Conditions.of_query(form.verbatim("conditions"))
    uuids, has_list = form.texts("uuid"), "rows" in form
    try:
        job = await _created(request, form, conditions, uuids)
    except MooringError as error:
        problem = problem_in_place(request, error)
        return _form(
            request,
            await broker_names(request),
            conditions=conditions,
            uuids=uuids,
            has_list=has_list,
            problem=problem,
            typed={name: form.text(name) for name in ("mqtt_broker_id", "rows")},
        )
    return see_other(f"/console/jobs/{job.id}")


async def _created(
    request: ConsoleRequest, form: Form, conditions: Conditions, uuids: list[str]
) -> Any:
    has_list = bool(uuids) or "rows" in form
    body = body_of(
        jobs.create_job,
        {
            "kind": "assign",
            "mqtt_broker_id": form.number("mqtt_broker_id"),
            "filter": None if has_list else conditions.as_filter(),
        },
    )
    job: Any = await jobs.create_job.fn(request, body)
    if not has_list:
        return job
    rows = "uuid\n" + "\n".join(uuids) if uuids else form.verbatim("rows")
    media_type = CSV if uuids else type_of(rows)
    try:
        await job_lists.add_list(request.auth, job.id, stream_of(rows), media_type)
    except MooringError:
        # Without its list, the draft is of no use.
        await jobs.cancel_job.fn(request, job.id)
        raise
    return job


ROUTES = Router("/jobs", route_handlers=[job_list, new_job_page, create_job])
