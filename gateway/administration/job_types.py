"""Jobs in JSON: the bodies of requests and answers."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from mooring.registry.v1 import jobs_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.administration.device_filters import DeviceFilter, filter_json
from gateway.administration.fields import Id, moment_of
from gateway.administration.listing import Page
from gateway.documentation import documented
from gateway.examples import MOMENT, UUID

STATES = ["draft", "running", "paused", "done", "cancelled"]
OUTCOMES = [
    *("pending", "moved", "unchanged", "undone", "changed_since", "not_restored"),
    *("INVALID_ROW", "UUID_REPEATED", "DEVICE_NOT_FOUND"),
    *("BROKER_UNKNOWN", "BROKER_INACTIVE", "BROKER_NOT_ALLOWED"),
]


class NewJob(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A new job. Nothing changes before it is started."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"kind": "assign", "mqtt_broker_id": 1, "filter": None}

    kind: Annotated[str, documented(enum=["assign"])]
    mqtt_broker_id: Annotated[Id, Meta(description="The pin; null removes pins.")] | None
    filter: Annotated[
        DeviceFilter | None, Meta(description="Null or left out: upload a list of devices.")
    ] = None


class NewJobRow(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A line of a list."""

    uuid: str
    # If it is left out, the row gets the broker of the job.
    mqtt_broker_id: Id | UnsetType | None = UNSET


class Job(Struct, kw_only=True, frozen=True):
    """A job and its state."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 1,
        "kind": "assign",
        "mqtt_broker_id": 1,
        "filter": {"fleet_id": "demo", "mqtt_broker_id": None},
        "state": "running",
        "is_undo": False,
        "failure": None,
        "progress": 0.25,
        "rows_per_s": 24_000.0,
        "outcomes": {"moved": 250_000, "BROKER_NOT_ALLOWED": 12},
        "is_uploaded": False,
        "actor": "nightly backup",
        "created_at": MOMENT,
        "started_at": MOMENT,
        "ended_at": None,
    }

    id: int
    kind: str
    mqtt_broker_id: int | None
    filter: dict[str, Any] | None
    state: Annotated[str, documented(enum=STATES)]
    is_undo: Annotated[bool, Meta(description="Whether it undoes its changes.")]
    failure: Annotated[str | None, Meta(description="Why it failed and was paused.")]
    progress: Annotated[float, Meta(description="From 0 to 1.")]
    rows_per_s: Annotated[float, Meta(description="The rate while the job was running.")]
    outcomes: Annotated[dict[str, int], Meta(description="The number of rows by outcome.")]
    is_uploaded: Annotated[bool, Meta(description="Whether its list was uploaded completely.")]
    actor: Annotated[str, Meta(description="The name of the API token for which it runs.")]
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


class JobPage(Page[Job], frozen=True):
    """Jobs, the newest first."""


class JobRow(Struct, kw_only=True, frozen=True):
    """The outcome for a device, or, while it is pending, the outcome that it would have now."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "line": None,
        "uuid": UUID,
        "from_broker_id": None,
        "to_broker_id": 1,
        "outcome": "moved",
        "verdict": None,
        "detail": None,
    }

    line: Annotated[int | None, Meta(description="The line of the list; null without a list.")]
    uuid: str
    from_broker_id: Annotated[int | None, Meta(description="The previous pin.")]
    to_broker_id: Annotated[int | None, Meta(description="The new pin.")]
    outcome: Annotated[str, documented(enum=OUTCOMES)]
    verdict: Annotated[
        str | None, Meta(description="For a pending row: the outcome that it would have now.")
    ]
    detail: Annotated[str | None, Meta(description="The error in the line.")]


class JobRowPage(Page[JobRow], frozen=True):
    """Rows of a job, in the order of their lines, or of the devices' ids."""


class Destination(Struct, kw_only=True, frozen=True):
    """A broker of devices, and the step that names it."""

    mqtt_broker_id: int | None
    source: Annotated[str | None, Meta(description="Null if no broker may serve the devices.")]


class JobMove(Struct, kw_only=True, frozen=True):
    """Devices that would go from one broker to another."""

    before: Destination
    after: Destination
    devices: int
    examples: Annotated[list[str], Meta(description="The uuids of some of these devices.")]


class JobCheck(Struct, kw_only=True, frozen=True):
    """The changes that a job would make now."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "outcomes": {"moved": 1},
        "moves": [
            {
                "before": {"mqtt_broker_id": 1, "source": "default"},
                "after": {"mqtt_broker_id": 1, "source": "device"},
                "devices": 1,
                "examples": [UUID],
            }
        ],
        "devices_left_out": 0,
    }

    outcomes: Annotated[dict[str, int], Meta(description="The number of rows by outcome.")]
    moves: Annotated[list[JobMove], Meta(description="At most 500, most devices first.")]
    devices_left_out: Annotated[int, Meta(description="The devices of moves that are not shown.")]


def job_json(job: jobs_pb2.Job) -> Job:
    """The registry's job as JSON. The filter has only the conditions that are set."""
    return Job(
        id=job.id,
        kind="assign",
        mqtt_broker_id=job.mqtt_broker_id or None,
        filter=filter_json(job.filter) if job.HasField("filter") else None,
        state=job.state,
        is_undo=job.is_undo,
        failure=job.failure or None,
        progress=round(job.progress, 4),
        rows_per_s=round(job.rate, 1),
        outcomes=dict(job.outcomes),
        is_uploaded=job.is_uploaded,
        actor=job.actor,
        created_at=moment_of(job, "created_at"),
        started_at=moment_of(job, "started_at"),
        ended_at=moment_of(job, "ended_at"),
    )


def row_json(row: jobs_pb2.JobRow) -> JobRow:
    """The registry's row as JSON."""
    return JobRow(
        line=row.line or None,
        uuid=row.device_uuid,
        from_broker_id=row.previous_broker_id or None,
        to_broker_id=row.mqtt_broker_id or None,
        outcome=row.outcome,
        verdict=row.verdict or None,
        detail=row.detail or None,
    )


def check_json(check: jobs_pb2.CheckJobResponse) -> JobCheck:
    """The registry's check as JSON."""
    return JobCheck(
        outcomes=dict(check.outcomes),
        moves=[
            JobMove(
                before=_destination(move.before),
                after=_destination(move.after),
                devices=move.devices,
                examples=list(move.examples),
            )
            for move in check.moves
        ],
        devices_left_out=check.devices_left_out,
    )


def _destination(destination: jobs_pb2.Destination) -> Destination:
    return Destination(
        mqtt_broker_id=destination.broker_id or None, source=destination.source or None
    )
