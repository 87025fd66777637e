"""Starting, pausing, resuming, cancelling and undoing a job."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Response, Router, get, post

from chassis.errors import MooringError
from chassis.trust import Access
from gateway.administration import jobs
from gateway.administration.fields import PathId
from gateway.console.broker_names import broker_names
from gateway.console.changes import problem_in_place
from gateway.console.forms import form_of
from gateway.console.job import acts_of
from gateway.console.job_words import purpose
from gateway.console.pages import page, see_other
from gateway.console.visitor import ConsoleRequest, permitted
from gateway.problems import Problem


async def _acted(
    request: ConsoleRequest, job_id: int, act: Callable[[Any, int], Awaitable[Any]]
) -> Response[Any]:
    await form_of(request)
    try:
        await act(request, job_id)
    except MooringError as error:
        return await _confirmation(request, job_id, "", problem_in_place(request, error))
    return see_other(f"/console/jobs/{job_id}")


async def _confirmation(
    request: ConsoleRequest, job_id: int, act: str, problem: Problem | None = None
) -> Response[bytes]:
    job: Any = await jobs.get_job.fn(request, job_id)
    names = await broker_names(request)
    return page(
        request,
        "job_confirm.html",
        status=problem.status if problem else 200,
        job=job,
        title=purpose(job, names),
        act=act,
        can=acts_of(job),
        problem=problem,
    )


@post("/{job_id:int}/start", access=Access.OPERATOR, action="job.start", status_code=200)
async def start_job(request: ConsoleRequest, job_id: PathId) -> Response[Any]:
    """Starts it."""
    return await _acted(request, job_id, jobs.start_job.fn)


@post("/{job_id:int}/pause", access=Access.OPERATOR, action="job.pause", status_code=200)
async def pause_job(request: ConsoleRequest, job_id: PathId) -> Response[Any]:
    """Pauses it."""
    return await _acted(request, job_id, jobs.pause_job.fn)


@post("/{job_id:int}/resume", access=Access.OPERATOR, action="job.resume", status_code=200)
async def resume_job(request: ConsoleRequest, job_id: PathId) -> Response[Any]:
    """Continues it."""
    return await _acted(request, job_id, jobs.resume_job.fn)


@get("/{job_id:int}/cancel", access=Access.OPERATOR, guards=[permitted])
async def cancel_page(request: ConsoleRequest, job_id: PathId) -> Response[bytes]:
    """Says what stays."""
    return await _confirmation(request, job_id, "cancel")


@post("/{job_id:int}/cancel", access=Access.OPERATOR, action="job.cancel", status_code=200)
async def cancel_job(request: ConsoleRequest, job_id: PathId) -> Response[Any]:
    """Ends it."""
    return await _acted(request, job_id, jobs.cancel_job.fn)


@get("/{job_id:int}/undo", access=Access.OPERATOR, guards=[permitted])
async def undo_page(request: ConsoleRequest, job_id: PathId) -> Response[bytes]:
    """Says how many devices it concerns."""
    return await _confirmation(request, job_id, "undo")


@post("/{job_id:int}/undo", access=Access.OPERATOR, action="job.undo", status_code=200)
async def undo_job(request: ConsoleRequest, job_id: PathId) -> Response[Any]:
    """Gives the previous pins back."""
    return await _acted(request, job_id, jobs.undo_job.fn)


ROUTES = Router(
    "/jobs",
    route_handlers=[
        start_job,
        pause_job,
        resume_job,
        cancel_page,
        cancel_job,
        undo_page,
        undo_job,
    ],
)
