"""The list of a job's devices, as a file: `/api/v1/jobs/{id}/rows`."""

import asyncio
from collections.abc import AsyncIterable, Sequence

from litestar import Router, put
from mooring.registry.v1 import jobs_pb2
from msgspec import UNSET

from chassis.errors import InvalidInput
from chassis.trust import Access
from gateway.administration.caller import Caller, CallerRequest
from gateway.administration.fields import PathId
from gateway.administration.job_types import Job, NewJobRow, job_json
from gateway.documentation import LinesOf
from gateway.examples import UUID
from gateway.uploads import MAX_BYTES, Form, Line, Upload, receive

ROWS = Form(NewJobRow, "uuid")
ROWS_AT_ONCE = 5_000
# The deadline for a batch of rows. The whole file may take longer.
BATCH_S = 15.0


@put(
    "/{job_id:int}/rows",
    access=Access.OPERATOR,
    action="job.add_rows",
    summary="Upload the list of a job's devices",
    description="NDJSON (application/x-ndjson) or CSV with a header line (text/csv): `uuid`, and"
    " `mqtt_broker_id` if a device gets another broker than the job's. It replaces the previous"
    " list. A wrong line becomes a refused row.",
    upload=LinesOf((NewJobRow,), ({"uuid": UUID, "mqtt_broker_id": 1},)),
    request_max_body_size=MAX_BYTES,
    reasons=("JOB_NOT_FOUND", "JOB_HAS_FILTER", "JOB_STATE_FORBIDS"),
)
async def upload_job_rows(request: CallerRequest, job_id: PathId) -> Job:
    content_type = request.headers.get("content-type", "")
    return await add_list(request.auth, job_id, request.stream(), content_type)


async def add_list(
    caller: Caller, job_id: int, stream: AsyncIterable[bytes], content_type: str
) -> Job:
    """Replaces the list of a job by the file in `stream`. Raises what `receive` and the registry
    raise.
    """
    # A call without rows refuses a caller that may not upload, before the file is received.
    await _add(caller, job_id, 0, ())
    upload = await receive(stream, content_type, ROWS)
    return job_json(await _sent(caller, job_id, upload))


async def _sent(caller: Caller, job_id: int, upload: Upload[NewJobRow]) -> jobs_pb2.Job:
    """Sends the list to the registry, and returns the job. The caller's token must stay valid."""
    number = 0
    async for batch in upload.batches(ROWS_AT_ONCE):
        number = (await _add(caller, job_id, number, batch)).upload
    return (await _add(caller, job_id, number, (), is_last=True)).job


async def _add(
    caller: Caller,
    job_id: int,
    upload: int,
    lines: Sequence[Line[NewJobRow]],
    *,
    is_last: bool = False,
) -> jobs_pb2.AddJobRowsResponse:
    patient = await caller.again(asyncio.get_running_loop().time() + BATCH_S)
    return await patient.ask_registry(
        patient.services.jobs.AddJobRows,
        jobs_pb2.AddJobRowsRequest(
            id=job_id, upload=upload, rows=map(_row, lines), is_last=is_last
        ),
    )


def _row(line: Line[NewJobRow]) -> jobs_pb2.NewJobRow:
    row = line.row
    if isinstance(row, InvalidInput):
        fault = f"{row.field} {row.message}" if row.field else row.message
        return jobs_pb2.NewJobRow(line=line.number, device_uuid=line.subject, fault=fault)
    pin = row.mqtt_broker_id
    return jobs_pb2.NewJobRow(
        line=line.number,
        device_uuid=row.uuid,
        mqtt_broker_id=None if pin is UNSET else pin or 0,
    )


ROUTES = Router("/jobs", route_handlers=[upload_job_rows], tags=["jobs"])
