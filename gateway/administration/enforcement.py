"""How a broker that Mooring drives is: `/api/v1/brokers/{id}/enforcement`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Router, get
from mooring.registry.v1 import enforcement_pb2 as pb
from msgspec import Meta, Struct

from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import PathId, moment_of, optional
from gateway.examples import MOMENT


class RevocationTimes(Struct, kw_only=True, frozen=True):
    """Seconds from when an access ended until the broker had ended the sessions."""

    count: Annotated[
        int, Meta(description="How many were measured: of the last week the last 1,000.")
    ]
    median_s: float | None
    slowest_s: float | None
    last_at: Annotated[
        datetime | None, Meta(description="Of the last that took effect: when its access ended.")
    ]
    last_s: float | None


class Enforcement(Struct, kw_only=True, frozen=True):
    """What whoever drives the broker has found and done."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "broker_id": 1,
        "management": "mosquitto",
        "looked_at": MOMENT,
        "in_step_at": MOMENT,
        "clients": 412,
        "problem": None,
        "pending_revocations": 0,
        "revocations": {
            "count": 37,
            "median_s": 0.021,
            "slowest_s": 0.48,
            "last_at": MOMENT,
            "last_s": 0.019,
        },
    }

    broker_id: int
    management: Annotated[
        str, Meta(description="How it is driven: `mosquitto`, `emqx` or `rabbitmq`; empty: not.")
    ]
    looked_at: datetime | None
    in_step_at: Annotated[
        datetime | None, Meta(description="When it last was found, or made, as it should be.")
    ]
    clients: Annotated[
        int | None,
        Meta(
            description="How many a Mosquitto lets in, Mooring's own login aside. Null for brokers"
            " that ask, and while it is not known."
        ),
    ]
    problem: Annotated[
        str | None, Meta(description="What keeps it from being as it should, for people.")
    ]
    pending_revocations: Annotated[int, Meta(description="Whose sessions are yet to be ended.")]
    revocations: RevocationTimes


def _json(enforcement: pb.Enforcement) -> Enforcement:
    times = enforcement.revocations
    return Enforcement(
        broker_id=enforcement.broker_id,
        management=enforcement.management,
        looked_at=moment_of(enforcement, "looked_at"),
        in_step_at=moment_of(enforcement, "in_step_at"),
        clients=optional(enforcement, "clients"),
        problem=enforcement.problem or None,
        pending_revocations=enforcement.pending_revocations,
        revocations=RevocationTimes(
            count=times.count,
            median_s=optional(times, "median_s"),
            slowest_s=optional(times, "slowest_s"),
            last_at=moment_of(times, "last_at"),
            last_s=optional(times, "last_s"),
        ),
    )


@get(
    "/{broker_id:int}/enforcement",
    access=Access.VIEWER,
    summary="See how a driven broker is",
    description="Whether it lets in whom it should, and how long it takes from when an access ends"
    " until the sessions have. A broker without a `management` is not driven: nobody has looked at"
    " it.",
    reasons=("BROKER_NOT_FOUND",),
)
async def get_enforcement(request: CallerRequest, broker_id: PathId) -> Enforcement:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.enforcement.GetEnforcement, pb.GetEnforcementRequest(broker_id=broker_id)
    )
    return _json(answer.enforcement)


ROUTES = Router("/brokers", route_handlers=[get_enforcement], tags=["brokers"])
