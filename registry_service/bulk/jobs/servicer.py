"""gRPC: jobs."""

from collections import Counter
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import jobs_pb2 as pb
from mooring.registry.v1 import jobs_pb2_grpc

from chassis import pages
from chassis.errors import InvalidInput
from chassis.searching import start_of
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access
from chassis.validation import check_identifier, check_range
from registry_service.bulk.jobs import outcomes
from registry_service.bulk.jobs.checking import (
    Check,
    Destination,
    Destinations,
    placings_of,
    summed,
)
from registry_service.bulk.jobs.lifecycle import Action, State
from registry_service.bulk.jobs.store import Job, JobStore
from registry_service.device_filter import conditions_of, filter_of

ACTIONS = {
    pb.JOB_ACTION_START: Action.START,
    pb.JOB_ACTION_PAUSE: Action.PAUSE,
    pb.JOB_ACTION_RESUME: Action.RESUME,
    pb.JOB_ACTION_CANCEL: Action.CANCEL,
    pb.JOB_ACTION_UNDO: Action.UNDO,
}

MAX_ROWS = 10_000
MAX_LINE = 2**31 - 1
MAX_DETAIL = 200


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """Manages jobs. A worker runs them."""

    def __init__(self, store: JobStore, destinations: Destinations) -> None:
        """`store` holds the jobs; `destinations` resolves the brokers of their devices."""
        self._store = store
        self._destinations = destinations

    @allows(Access.OPERATOR)
    async def CreateJob(
        self, request: pb.CreateJobRequest, context: Context
    ) -> pb.CreateJobResponse:
        """Raises `InvalidInput`, `BrokerUnknown`."""
        if request.kind != "assign":
            raise InvalidInput("must be assign", field="kind")
        _check_broker("mqtt_broker_id", request.mqtt_broker_id)
        wanted = conditions_of(request.filter) if request.HasField("filter") else None
        job = await self._store.create(request.kind, request.mqtt_broker_id or None, wanted)
        return pb.CreateJobResponse(job=_proto(job))

    @allows(Access.VIEWER)
    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Raises `JobNotFound`."""
        return pb.GetJobResponse(job=_proto(await self._store.job(request.id)))

    @allows(Access.VIEWER)
    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Lists the newest job first. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        if request.state and request.state not in set(State):
            raise InvalidInput(f"must be one of {', '.join(State)}", field="state")
        start = start_of(request.search, request.cursor, int)
        rows = await self._store.jobs_from(start, request.state, size + 1)
        page, next_cursor = pages.cut(rows, size, lambda row: start.place_of(row.rank, row.id))
        return pb.ListJobsResponse(jobs=map(_proto, page), next_cursor=next_cursor)

    @allows(Access.OPERATOR)
    async def AddJobRows(
        self, request: pb.AddJobRowsRequest, context: Context
    ) -> pb.AddJobRowsResponse:
        """Raises `InvalidInput`, `JobNotFound`, `JobHasFilter`, `JobStateForbids`, `LostRace`."""
        if len(request.rows) > MAX_ROWS:
            raise InvalidInput(f"at most {MAX_ROWS} at once", field="rows")
        job = await self._store.job(request.id)
        rows = [_row(row, job.mqtt_broker_id) for row in request.rows]
        if any(row["number"] >= later["number"] for row, later in pairwise(rows)):
            raise InvalidInput("must be in the order of their lines", field="rows")
        job = await self._store.add_rows(job.id, request.upload, rows, is_last=request.is_last)
        return pb.AddJobRowsResponse(upload=job.upload, job=_proto(job))

    @allows(Access.VIEWER)
    async def ListJobRows(
        self, request: pb.ListJobRowsRequest, context: Context
    ) -> pb.ListJobRowsResponse:
        """Lists rows in the order of lines of the list or, for a filter, of ids of devices. Raises
        `InvalidInput`, `JobNotFound`.
        """
        size = pages.page_size_of(request.page_size)
        if request.outcome and request.outcome not in outcomes.ALL:
            raise InvalidInput("is not an outcome", field="outcome")
        job = await self._store.job(request.id)
        rows = await self._store.rows_after(
            job.id, pages.after(request.cursor, int), request.outcome, size + 1
        )
        page, next_cursor = pages.cut(rows, size, lambda row: row.number)
        verdicts: dict[int, sa.Row[Any]] = {}
        if any(row.outcome == outcomes.PENDING for row in page):
            verdicts = await self._store.verdicts(job, page[0].number, page[-1].number)
        return pb.ListJobRowsResponse(
            rows=[_row_proto(job, row, verdicts.get(row.number)) for row in page],
            next_cursor=next_cursor,
        )

    @allows(Access.VIEWER)
    async def CheckJob(self, request: pb.CheckJobRequest, context: Context) -> pb.CheckJobResponse:
        """Checks the rows of a list that are pending, or all devices that a filter matches. Raises
        `JobNotFound`, `Unavailable`.
        """
        job = await self._store.job(request.id)
        groups, version = await self._store.groups(job)
        moved = [group for group in groups if group.outcome == outcomes.MOVED]
        placings = {placing: None for group in moved for placing in placings_of(group)}
        destinations = await self._destinations.of(list(placings), version, deadline_of(context))
        return _check_proto(job, summed(groups, destinations))

    @allows(Access.OPERATOR)
    async def ActOnJob(self, request: pb.ActOnJobRequest, context: Context) -> pb.ActOnJobResponse:
        """Raises `InvalidInput`, `JobNotFound`, `JobStateForbids`; when it starts a job also
        `JobHasNoList`, `BrokerUnknown`, `BrokerInactive`.
        """
        if request.action not in ACTIONS:
            raise InvalidInput(f"must be one of {', '.join(ACTIONS.values())}", field="action")
        return pb.ActOnJobResponse(job=await self._after(request.id, ACTIONS[request.action]))

    @allows(Access.OPERATOR)
    async def StartJob(self, request: pb.StartJobRequest, context: Context) -> pb.StartJobResponse:
        """Deprecated; raises what `ActOnJob` raises."""
        return pb.StartJobResponse(job=await self._after(request.id, Action.START))

    @allows(Access.OPERATOR)
    async def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> pb.PauseJobResponse:
        """Deprecated; raises what `ActOnJob` raises."""
        return pb.PauseJobResponse(job=await self._after(request.id, Action.PAUSE))

    @allows(Access.OPERATOR)
    async def ResumeJob(
        self, request: pb.ResumeJobRequest, context: Context
    ) -> pb.ResumeJobResponse:
        """Deprecated; raises what `ActOnJob` raises."""
        return pb.ResumeJobResponse(job=await self._after(request.id, Action.RESUME))

    @allows(Access.OPERATOR)
    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """Deprecated; raises what `ActOnJob` raises."""
        return pb.CancelJobResponse(job=await self._after(request.id, Action.CANCEL))

    @allows(Access.OPERATOR)
    async def UndoJob(self, request: pb.UndoJobRequest, context: Context) -> pb.UndoJobResponse:
        """Deprecated; raises what `ActOnJob` raises."""
        return pb.UndoJobResponse(job=await self._after(request.id, Action.UNDO))

    async def _after(self, job_id: int, action: Action) -> pb.Job:
        return _proto(await self._store.take(job_id, action))


def _check_broker(field: str, broker_id: int) -> None:
    if broker_id < 0:
        raise InvalidInput("must not be negative", field=field)


def _row(row: pb.NewJobRow, usual_broker_id: int | None) -> dict[str, Any]:
    """The row as it is stored. If its uuid or broker is wrong, the row records that, and no error
    is raised.
    """
    check_range("rows.line", row.line, 1, MAX_LINE)
    fault = row.fault[:MAX_DETAIL].replace("\0", "")
    uuid, target = row.device_uuid, usual_broker_id
    if row.HasField("mqtt_broker_id"):
        target = row.mqtt_broker_id or None
        if row.mqtt_broker_id < 0:
            target, fault = None, fault or "mqtt_broker_id must not be negative"
    try:
        check_identifier("uuid", uuid)
    except InvalidInput as error:
        uuid, fault = "", fault or f"uuid {error.message}"
    return {"number": row.line, "uuid": uuid, "target": target, "fault": fault}


def _proto(job: Job) -> pb.Job:
    return pb.Job(
        id=job.id,
        mqtt_broker_id=job.mqtt_broker_id or 0,
        filter=None if job.filter is None else filter_of(job.filter),
        state=job.state,
        is_undo=job.is_undo,
        failure=job.failure,
        progress=_progress(job),
        rate=job.handled / job.busy_s if job.busy_s else 0.0,
        outcomes=job.outcomes,
        is_uploaded=job.is_uploaded,
        actor=job.actor,
        created_at=timestamp_of(job.created_at),
        started_at=timestamp_of(job.started_at),
        ended_at=timestamp_of(job.ended_at),
    )


def _progress(job: Job) -> float:
    if job.state == State.DONE:
        return 1.0
    return float(job.reached / job.last_number) if job.last_number else 0.0


def _row_proto(job: Job, row: sa.Row[Any], verdict: sa.Row[Any] | None) -> pb.JobRow:
    previous = row.previous_broker_id if verdict is None else verdict.previous
    return pb.JobRow(
        line=row.number if job.filter is None else 0,
        device_uuid=row.device_uuid,
        mqtt_broker_id=row.mqtt_broker_id or 0,
        previous_broker_id=previous or 0,
        outcome=row.outcome,
        verdict="" if verdict is None else verdict.outcome,
        detail=row.detail,
    )


def _check_proto(job: Job, check: Check) -> pb.CheckJobResponse:
    counts = Counter(check.outcomes)
    if job.filter is None:
        # Add the rows that were refused when the list was read.
        counts.update({name: job.outcomes.get(name, 0) for name in outcomes.REFUSALS})
    return pb.CheckJobResponse(
        outcomes=+counts,
        moves=[
            pb.Move(
                before=_destination(move.before),
                after=_destination(move.after),
                devices=move.devices,
                examples=move.examples,
            )
            for move in check.moves
        ],
        devices_left_out=check.devices_left_out,
    )


def _destination(destination: Destination) -> pb.Destination:
    return pb.Destination(broker_id=destination.broker_id or 0, source=destination.source)
