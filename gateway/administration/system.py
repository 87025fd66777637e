"""The processes of the installation: `/api/v1/system/processes`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from litestar import Router, get
from litestar.params import QueryParameter
from mooring.registry.v1 import system_pb2 as pb
from msgspec import Meta, Struct

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import moment_of, optional
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.examples import MOMENT, PROCESS_ID

State = Literal["running", "ended", "lost"]
STATES: "dict[pb.ProcessState.ValueType, State]" = {
    pb.PROCESS_STATE_RUNNING: "running",
    pb.PROCESS_STATE_ENDED: "ended",
    pb.PROCESS_STATE_LOST: "lost",
}
NUMBERS = {name: number for number, name in STATES.items()}


class ProcessLoop(Struct, kw_only=True, frozen=True):
    """A loop that runs in the background of a process."""

    name: str
    problem: Annotated[
        str | None, Meta(description="Why the loop does not do its work; null if it does.")
    ]
    succeeded_at: Annotated[
        datetime | None, Meta(description="When it last did its work, by the process's clock.")
    ]
    failing_since: Annotated[
        datetime | None,
        Meta(
            description="When the first failure after the last success was; null if there is none."
        ),
    ]
    holds_lease: Annotated[
        bool | None,
        Meta(
            description="Whether this process, and no other, does the work. Null for a loop that "
            "may run in several processes at once."
        ),
    ]
    is_late: Annotated[
        bool,
        Meta(description="Whether it had not done its work for ten minutes at the last report."),
    ]


class Process(Struct, kw_only=True, frozen=True):
    """A process, as it last reported its state. A process reports every ten seconds."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": PROCESS_ID,
        "process": "registry_service.worker",
        "host": "mooring-1",
        "pid": 4711,
        "version": "0.1.0",
        "started_at": MOMENT,
        "seen_at": MOMENT,
        "ended_at": None,
        "state": "running",
        "is_ready": True,
        "checks": {"jobs": "serving"},
        "loops": [
            {
                "name": "jobs",
                "problem": None,
                "succeeded_at": MOMENT,
                "failing_since": None,
                "holds_lease": True,
                "is_late": False,
            }
        ],
        "configuration": {"JOB_POLL_S": "0.5", "DATABASE_URL": "(set)"},
        "has_problem": False,
    }

    id: Annotated[str, Meta(description="A process takes a new id each time it starts.")]
    process: Annotated[str, Meta(description="The module that is run.")]
    host: str
    pid: int
    version: str
    started_at: Annotated[datetime | None, Meta(description="By the clock of the process.")]
    seen_at: Annotated[
        datetime | None, Meta(description="When it last reported, by the clock of the database.")
    ]
    ended_at: Annotated[
        datetime | None, Meta(description="When it reported that it ends; null if it did not.")
    ]
    state: Annotated[
        State,
        Meta(
            description="`running`: it reported in the last 30 seconds. `ended`: it reported that "
            "it ends. `lost`: it has not reported since `seen_at`, because it was killed, hangs or "
            "cannot reach the database."
        ),
    ]
    is_ready: Annotated[
        bool, Meta(description="Whether it could do its work when it last reported.")
    ]
    checks: Annotated[
        dict[str, str], Meta(description="What it checked, by name: `serving`, or the problem.")
    ]
    loops: list[ProcessLoop]
    configuration: Annotated[
        dict[str, str] | None,
        Meta(
            description="The variables: the values of harmless ones; of the others only whether "
            "they are set: `(set)` or `(not set)`. Null unless the token's role is `admin`."
        ),
    ]
    has_problem: Annotated[
        bool,
        Meta(
            description="Whether a person should look at it. A process that runs: it is not ready, "
            "or a loop of it fails or is late. One that was lost: no process of its name has "
            "started since. One that ended: it was the last of its name, and none of its name runs."
        ),
    ]


class ProcessPage(Page[Process], frozen=True):
    """Processes in the order of their names."""


def _json(process: pb.Process) -> Process:
    return Process(
        id=process.id,
        process=process.process,
        host=process.host,
        pid=process.pid,
        version=process.version,
        started_at=moment_of(process, "started_at"),
        seen_at=moment_of(process, "seen_at"),
        ended_at=moment_of(process, "ended_at"),
        state=STATES.get(process.state, "lost"),
        is_ready=process.is_ready,
        checks=dict(process.checks),
        loops=[
            ProcessLoop(
                name=loop.name,
                problem=loop.problem or None,
                succeeded_at=moment_of(loop, "succeeded_at"),
                failing_since=moment_of(loop, "failing_since"),
                holds_lease=optional(loop, "holds_lease"),
                is_late=loop.is_late,
            )
            for loop in process.loops
        ],
        configuration=dict(process.configuration) or None,
        has_problem=process.has_problem,
    )


@get(
    "/processes",
    access=Access.VIEWER,
    summary="List the processes of this installation",
    description="Processes that ended or were lost are listed for a day.",
)
async def list_processes(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    in_state: Annotated[
        State | None, QueryParameter(name="state", description="Only processes in this state.")
    ] = None,
    has_problem: Annotated[
        bool | None,
        QueryParameter(
            description="true: only processes that a person should look at; false: only the others."
        ),
    ] = None,
) -> ProcessPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.system.ListProcesses,
        pb.ListProcessesRequest(
            page_size=limit,
            cursor=cursor,
            state=NUMBERS[in_state] if in_state else pb.PROCESS_STATE_UNSPECIFIED,
            has_problem=has_problem,
        ),
    )
    return ProcessPage([_json(process) for process in answer.processes], answer.next_cursor or None)


ROUTES = Router("/system", route_handlers=[list_processes], tags=["system"])
