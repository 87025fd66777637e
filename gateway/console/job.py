"""One job: its progress, its rows, and what it would do now."""

import asyncio
from typing import Annotated, Any

from litestar import Response, Router, get
from litestar.params import QueryParameter

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import jobs
from gateway.administration.fields import PathId
from gateway.administration.job_types import Job
from gateway.administration.listing import Cursor
from gateway.console.broker_names import broker_names
from gateway.console.changes import problem_in_place
from gateway.console.job_words import OUTCOMES, STATES, devices_in_words, purpose
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, visitor_of

ON_A_PAGE = 50
UNKNOWN_OUTCOME = ("", "off")


@get("/{job_id:int}", access=Access.VIEWER)
async def job_page(
    request: ConsoleRequest,
    job_id: PathId,
    cursor: Cursor = "",
    outcome: Annotated[str, QueryParameter(max_length=64)] = "",
) -> Response[bytes]:
    """A job. While it runs, a script asks for this page again and again."""
    job: Any
    rows: Any
    job, rows, names = await asyncio.gather(
        jobs.get_job.fn(request, job_id),
        jobs.list_job_rows.fn(request, job_id, limit=ON_A_PAGE, cursor=cursor, outcome=outcome),
        broker_names(request),
    )
    visitor = visitor_of(request)
    return page(
        request,
        "job.html",
        job=job,
        title=purpose(job, names),
        devices=devices_in_words(job, names),
        is_list=job.filter is None,
        rows=rows.items,
        next_cursor=rows.next_cursor,
        outcome=outcome,
        outcomes=OUTCOMES,
        unknown_outcome=UNKNOWN_OUTCOME,
        states=STATES,
        brokers=names,
        may_act=visitor.may(jobs.start_job),
        can=acts_of(job),
    )


def acts_of(job: Job) -> set[str]:
    """What the state of a job allows: buttons for the rest would only be refused."""
    found = {
        "draft": {"start", "cancel"},
        "running": {"pause", "cancel"},
        "paused": {"resume", "cancel", "undo"},
        "done": {"undo"},
        "cancelled": {"undo"} if job.started_at else set(),
    }.get(job.state, set())
    is_undo = job.is_undo and job.state != "cancelled"
    return found - {"undo"} if is_undo else set(found)


@get("/{job_id:int}/check", access=Access.VIEWER)
async def check_page(request: ConsoleRequest, job_id: PathId) -> Response[bytes]:
    """What the job would do now. It reads all devices, so it is not part of the job's page."""
    check: Any = None
    problem = None
    try:
        job, check, names = await asyncio.gather(
            jobs.get_job.fn(request, job_id),
            jobs.check_job.fn(request, job_id),
            broker_names(request),
        )
    except MooringError as error:
        problem = problem_in_place(request, error)
        job, names = await asyncio.gather(jobs.get_job.fn(request, job_id), broker_names(request))
    return page(
        request,
        "job_check.html",
        # The script that asks for this part shows the problem in its place.
        status=200 if problem is None or "hx-request" in request.headers else problem.status,
        job=job,
        title=purpose(job, names),
        check=check,
        problem=problem,
        outcomes=OUTCOMES,
        unknown_outcome=UNKNOWN_OUTCOME,
        brokers=names,
        may_act=visitor_of(request).may(jobs.start_job),
        can=acts_of(job),
    )


ROUTES = Router("/jobs", route_handlers=[job_page, check_page])
