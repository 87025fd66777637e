"""The states of managed brokers: `/api/v1/enforcement`, and below a broker."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Router, get
from litestar.params import QueryParameter
from mooring.registry.v1 import enforcement_pb2 as pb
from msgspec import Meta, Struct

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import PathId, moment_of, optional
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.examples import MOMENT


class RevocationTimes(Struct, kw_only=True, frozen=True):
    """Times from the end of an access until the broker had ended its sessions, in seconds."""

    count: Annotated[
        int, Meta(description="The number of measured times: the last 1,000 of the last week.")
    ]
    median_s: float | None
    slowest_s: float | None
    last_at: Annotated[
        datetime | None,
        Meta(description="When the access ended for which the last time was measured."),
    ]
    last_s: float | None


class ListedEnforcement(Struct, kw_only=True, frozen=True):
    """What the reconciler found at a broker, in lists."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "broker_id": 1,
        "name": "Local Broker",
        "management": "mosquitto",
        "looked_at": MOMENT,
        "in_step_at": MOMENT,
        "clients": 412,
        "problem": None,
        "pending_revocations": 0,
    }

    broker_id: int
    name: str
    management: Annotated[
        str,
        Meta(
            description="How Mooring manages the broker: `mosquitto`, `emqx` or "
            "`rabbitmq`; empty: it does not."
        ),
    ]
    looked_at: datetime | None
    in_step_at: Annotated[
        datetime | None,
        Meta(description="When the broker was last in step: it held what it should hold."),
    ]
    clients: Annotated[
        int | None,
        Meta(
            description="The number of clients that a Mosquitto holds, without Mooring's own "
            "login. Null for brokers that ask, and while the number is not known."
        ),
    ]
    problem: Annotated[
        str | None, Meta(description="Why the broker is not in step, as text for people.")
    ]
    pending_revocations: Annotated[
        int, Meta(description="The number of clients whose sessions must still be ended.")
    ]


class Enforcement(ListedEnforcement, kw_only=True, frozen=True):
    """What the reconciler found at the broker and did there."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **ListedEnforcement.EXAMPLE,
        "revocations": {
            "count": 37,
            "median_s": 0.021,
            "slowest_s": 0.48,
            "last_at": MOMENT,
            "last_s": 0.019,
        },
    }

    revocations: RevocationTimes


class EnforcementPage(Page[ListedEnforcement], frozen=True):
    """Managed brokers, in the order of their ids."""


def _listed(enforcement: pb.Enforcement) -> dict[str, Any]:
    return {
        "broker_id": enforcement.broker_id,
        "name": enforcement.name,
        "management": enforcement.management,
        "looked_at": moment_of(enforcement, "looked_at"),
        "in_step_at": moment_of(enforcement, "in_step_at"),
        "clients": optional(enforcement, "clients"),
        "problem": enforcement.problem or None,
        "pending_revocations": enforcement.pending_revocations,
    }


def _json(enforcement: pb.Enforcement) -> Enforcement:
    times = enforcement.revocations
    return Enforcement(
        **_listed(enforcement),
        revocations=RevocationTimes(
            count=times.count,
            median_s=optional(times, "median_s"),
            slowest_s=optional(times, "slowest_s"),
            last_at=moment_of(times, "last_at"),
            last_s=optional(times, "last_s"),
        ),
    )


@get(
    "/enforcement",
    access=Access.VIEWER,
    summary="List the states of managed brokers",
)
async def list_enforcement(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    has_problem: Annotated[
        bool | None,
        QueryParameter(
            description="true: only active brokers with a problem; false: only the others."
        ),
    ] = None,
) -> EnforcementPage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.enforcement.ListEnforcement,
        pb.ListEnforcementRequest(page_size=limit, cursor=cursor, has_problem=has_problem),
    )
    return EnforcementPage(
        [ListedEnforcement(**_listed(one)) for one in answer.enforcement],
        answer.next_cursor or None,
    )


@get(
    "/brokers/{broker_id:int}/enforcement",
    access=Access.VIEWER,
    summary="Get the state of a managed broker",
    description="Whether the broker holds the clients that it should hold, and how long it "
    "takes from the end of an access until its sessions are ended. Mooring does not "
    "manage, or check, a broker without a `management`.",
    reasons=("BROKER_NOT_FOUND",),
)
async def get_enforcement(request: CallerRequest, broker_id: PathId) -> Enforcement:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.enforcement.GetEnforcement, pb.GetEnforcementRequest(broker_id=broker_id)
    )
    return _json(answer.enforcement)


ROUTES = Router("/", route_handlers=[list_enforcement, get_enforcement], tags=["brokers"])
