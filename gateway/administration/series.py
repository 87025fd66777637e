"""Registrations and refusals over time: `/api/v1/registrations/series`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from litestar import Router, get
from litestar.params import QueryParameter
from mooring.registry.v1 import series_pb2 as pb
from msgspec import Meta, Struct

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import moment_of, optional, timestamp_in
from gateway.examples import MOMENT

STEPS = {"minute": pb.STEP_MINUTE, "hour": pb.STEP_HOUR}


class Latency(Struct, kw_only=True, frozen=True):
    """How long the registry took to answer registrations, in seconds.

    Null if there were none. The values come from a histogram.
    """

    EXAMPLE: ClassVar[dict[str, Any]] = {"p50_s": 0.004, "p95_s": 0.012, "p99_s": 0.02}

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class SeriesPoint(Struct, kw_only=True, frozen=True):
    """What happened in `point_s` seconds."""

    at: Annotated[datetime | None, Meta(description="When the point begins.")]
    new_devices: Annotated[int, Meta(description="Registrations of new devices.")]
    known_devices: Annotated[
        int, Meta(description="Registrations of devices that were registered before.")
    ]
    refused: Annotated[
        int,
        Meta(description="Requests of devices that were refused, or could not be answered."),
    ]
    latency: Latency


class RefusalCount(Struct, kw_only=True, frozen=True):
    """How often requests of devices were refused for one reason."""

    reason: Annotated[str, Meta(description="As in the answer to the device.")]
    count: int


class RegistrationSeries(Struct, kw_only=True, frozen=True):
    """Registrations and refusals over time."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "point_s": 60,
        "since": MOMENT,
        "until": MOMENT,
        "points": [
            {
                "at": MOMENT,
                "new_devices": 120,
                "known_devices": 4,
                "refused": 1,
                "latency": Latency.EXAMPLE,
            }
        ],
        "refusals": [{"reason": "PROVISIONING_KEY_UNKNOWN", "count": 1}],
        "latency": Latency.EXAMPLE,
    }

    point_s: Annotated[
        int,
        Meta(
            description="How many seconds each point is long: the step, or a multiple of it where "
            "there would be more than 300 points or the token is for many fleets."
        ),
    ]
    since: Annotated[datetime | None, Meta(description="When the first point begins.")]
    until: Annotated[datetime | None, Meta(description="When the counted time ends.")]
    points: Annotated[
        list[SeriesPoint],
        Meta(description="In the order of time, without gaps."),
    ]
    refusals: Annotated[
        list[RefusalCount], Meta(description="Of all points, the most frequent first.")
    ]
    latency: Annotated[Latency, Meta(description="Of all points.")]


def _latency(found: pb.Latency) -> Latency:
    return Latency(
        p50_s=optional(found, "p50_s"),
        p95_s=optional(found, "p95_s"),
        p99_s=optional(found, "p99_s"),
    )


def _point(point: pb.SeriesPoint) -> SeriesPoint:
    return SeriesPoint(
        at=moment_of(point, "at"),
        new_devices=point.new_devices,
        known_devices=point.known_devices,
        refused=point.refused,
        latency=_latency(point.latency),
    )


@get(
    "/series",
    access=WithinFleets(Access.VIEWER),
    summary="Count registrations and refusals over time",
    description="Minutes are kept for two days, hours for 90 days. An answer has 300 points at "
    "most: for a longer range they are longer than the step. The newest counts are a few seconds "
    "old. A token that is restricted to fleets gets the counts of its fleets; refusals of requests "
    "whose fleet is not known are not among them.",
)
async def get_registration_series(
    request: CallerRequest,
    step: Annotated[
        Literal["minute", "hour"], QueryParameter(description="How long each point is.")
    ] = "minute",
    since: Annotated[
        str | None,
        QueryParameter(
            description="The first point contains this time, or is the oldest: RFC 3339, with a "
            "zone. By default there are 60 minutes or 24 hours.",
            format="date-time",
        ),
    ] = None,
    until: Annotated[
        str | None,
        QueryParameter(
            description="Only points that begin before this time: RFC 3339, with a zone. By "
            "default now.",
            format="date-time",
        ),
    ] = None,
    fleet_id: Annotated[str, QueryParameter(description="Only this fleet.")] = "",
) -> RegistrationSeries:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.series.GetRegistrationSeries,
        pb.GetRegistrationSeriesRequest(
            step=STEPS[step],
            since=timestamp_in("since", since),
            until=timestamp_in("until", until),
            fleet_id=fleet_id,
        ),
    )
    return RegistrationSeries(
        point_s=answer.point_s,
        since=moment_of(answer, "since"),
        until=moment_of(answer, "until"),
        points=[*map(_point, answer.points)],
        refusals=[RefusalCount(reason=one.reason, count=one.count) for one in answer.refusals],
        latency=_latency(answer.latency),
    )


ROUTES = Router("/registrations", route_handlers=[get_registration_series], tags=["devices"])
