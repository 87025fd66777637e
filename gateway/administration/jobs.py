"""Jobs, which change many devices in the background: `/api/v1/jobs`."""

from typing import Annotated

from litestar import Router, get, post
from litestar.params import JSONBody, QueryParameter
from mooring.registry.v1 import jobs_pb2

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.device_filters import filter_proto
from gateway.administration.fields import PathId
from gateway.administration.job_types import (
    OUTCOMES,
    STATES,
    Job,
    JobCheck,
    JobPage,
    JobRowPage,
    NewJob,
    check_json,
    job_json,
    row_json,
)
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, searched
from gateway.bodies import StrictJson


@post(
    "/",
    access=Access.OPERATOR,
    action="job.create",
    summary="Create a job",
    description="The job is a draft: check it, then start it. Without a filter, upload a list of"
    " devices first.",
    dto=StrictJson[NewJob],
    reasons=("BROKER_UNKNOWN",),
)
async def create_job(request: CallerRequest, data: JSONBody[NewJob]) -> Job:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.jobs.CreateJob,
        jobs_pb2.CreateJobRequest(
            kind=data.kind,
            mqtt_broker_id=data.mqtt_broker_id or 0,
            filter=filter_proto(data.filter),
        ),
    )
    return job_json(answer.job)


@get(
    "/",
    access=Access.VIEWER,
    summary="List jobs",
)
async def list_jobs(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    in_state: Annotated[
        str, QueryParameter(name="state", description=f"One of {', '.join(STATES)}.")
    ] = "",
    search: Annotated[
        str, searched("with this number, or made by a token whose name contains this")
    ] = "",
) -> JobPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.jobs.ListJobs,
        jobs_pb2.ListJobsRequest(page_size=limit, cursor=cursor, state=in_state, search=search),
    )
    return JobPage([job_json(job) for job in answer.jobs], answer.next_cursor or None)


@get(
    "/{job_id:int}",
    access=Access.VIEWER,
    summary="Get a job",
    reasons=("JOB_NOT_FOUND",),
)
async def get_job(request: CallerRequest, job_id: PathId) -> Job:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.jobs.GetJob, jobs_pb2.GetJobRequest(id=job_id)
    )
    return job_json(answer.job)


@get(
    "/{job_id:int}/rows",
    access=Access.VIEWER,
    summary="List the outcome for each device",
    description="A job with a filter lists the devices that were moved or refused. A job with a"
    " list lists all rows; the verdict of a pending row is the outcome that it would have now.",
    reasons=("JOB_NOT_FOUND",),
)
async def list_job_rows(
    request: CallerRequest,
    job_id: PathId,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    outcome: Annotated[str, QueryParameter(description=f"One of {', '.join(OUTCOMES)}.")] = "",
) -> JobRowPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.jobs.ListJobRows,
        jobs_pb2.ListJobRowsRequest(id=job_id, page_size=limit, cursor=cursor, outcome=outcome),
    )
    return JobRowPage([row_json(row) for row in answer.rows], answer.next_cursor or None)


@post(
    "/{job_id:int}/check",
    access=Access.VIEWER,
    status_code=200,
    summary="Check what a job would do now",
    description="Shows which devices would move, and between which brokers. It changes nothing.",
    reasons=("JOB_NOT_FOUND",),
)
async def check_job(request: CallerRequest, job_id: PathId) -> JobCheck:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.jobs.CheckJob, jobs_pb2.CheckJobRequest(id=job_id)
    )
    return check_json(answer)


async def _after(request: CallerRequest, job_id: int, action: jobs_pb2.JobAction.ValueType) -> Job:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.jobs.ActOnJob, jobs_pb2.ActOnJobRequest(id=job_id, action=action)
    )
    return job_json(answer.job)


@post(
    "/{job_id:int}/start",
    access=Access.OPERATOR,
    action="job.start",
    status_code=200,
    summary="Start a job",
    description="Devices that register later do not belong to it.",
    reasons=(
        "JOB_NOT_FOUND",
        "JOB_STATE_FORBIDS",
        "JOB_HAS_NO_LIST",
        "BROKER_UNKNOWN",
        "BROKER_INACTIVE",
    ),
)
async def start_job(request: CallerRequest, job_id: PathId) -> Job:
    return await _after(request, job_id, jobs_pb2.JOB_ACTION_START)


@post(
    "/{job_id:int}/pause",
    access=Access.OPERATOR,
    action="job.pause",
    status_code=200,
    summary="Pause a job",
    reasons=("JOB_NOT_FOUND", "JOB_STATE_FORBIDS"),
)
async def pause_job(request: CallerRequest, job_id: PathId) -> Job:
    return await _after(request, job_id, jobs_pb2.JOB_ACTION_PAUSE)


@post(
    "/{job_id:int}/resume",
    access=Access.OPERATOR,
    action="job.resume",
    status_code=200,
    summary="Resume a paused job",
    description="The job continues after the last row before the pause.",
    reasons=("JOB_NOT_FOUND", "JOB_STATE_FORBIDS"),
)
async def resume_job(request: CallerRequest, job_id: PathId) -> Job:
    return await _after(request, job_id, jobs_pb2.JOB_ACTION_RESUME)


@post(
    "/{job_id:int}/cancel",
    access=Access.OPERATOR,
    action="job.cancel",
    status_code=200,
    summary="Cancel a job",
    description="The changes of the job stay until it is undone.",
    reasons=("JOB_NOT_FOUND", "JOB_STATE_FORBIDS"),
)
async def cancel_job(request: CallerRequest, job_id: PathId) -> Job:
    return await _after(request, job_id, jobs_pb2.JOB_ACTION_CANCEL)


@post(
    "/{job_id:int}/undo",
    access=Access.OPERATOR,
    action="job.undo",
    status_code=200,
    summary="Undo a job",
    description="Restores the previous pin of each device whose pin is still the one from the job.",
    reasons=("JOB_NOT_FOUND", "JOB_STATE_FORBIDS"),
)
async def undo_job(request: CallerRequest, job_id: PathId) -> Job:
    return await _after(request, job_id, jobs_pb2.JOB_ACTION_UNDO)


ROUTES = Router(
    "/jobs",
    route_handlers=[
        create_job,
        list_jobs,
        get_job,
        list_job_rows,
        check_job,
        start_job,
        pause_job,
        resume_job,
        cancel_job,
        undo_job,
    ],
    tags=["jobs"],
)
