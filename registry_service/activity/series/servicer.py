"""gRPC: the series of registrations and refusals."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import series_pb2 as pb
from mooring.registry.v1 import series_pb2_grpc

from chassis import isolation
from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import moment_of, timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import check_identifier
from registry_service.activity.series.counts import ALL_FLEETS
from registry_service.activity.series.latency import BUCKETS, percentile_s
from registry_service.activity.series.store import SeriesStore

STEPS: Mapping[int, tuple[str, timedelta]] = {
    pb.STEP_MINUTE: ("minute", timedelta(minutes=1)),
    pb.STEP_HOUR: ("hour", timedelta(hours=1)),
}
# The points of an answer without `since`.
USUAL_POINTS = {pb.STEP_MINUTE: 60, pb.STEP_HOUR: 24}
# The limits of an answer, so that it takes some milliseconds: its points, and the rows that are
# summed up if there are several fleets.
MAX_POINTS = 1_500
MAX_ROWS = 10_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SeriesServicer(series_pb2_grpc.SeriesServiceServicer):
    """Restricted tokens see the counts of their fleets only."""

    def __init__(self, store: SeriesStore) -> None:
        """`store` holds the counts."""
        self._store = store

    @allows(WithinFleets(Access.VIEWER))
    async def GetRegistrationSeries(
        self, request: pb.GetRegistrationSeriesRequest, context: Context
    ) -> pb.GetRegistrationSeriesResponse:
        """Raises `InvalidInput`."""
        if request.step not in STEPS:
            raise InvalidInput("must be a minute or an hour", field="step")
        name, step = STEPS[request.step]
        fleets = _fleets(request.fleet_id)
        until = moment_of(request, "until") or datetime.now(UTC)
        since = moment_of(request, "since")
        if since is None:
            since = _earlier(until, step * (USUAL_POINTS[request.step] - 1))
        begin = _floor(since, step)
        points = _points(begin, until, step)
        if len(points) > MAX_POINTS or len(points) * len(fleets) > MAX_ROWS:
            most = min(MAX_POINTS, MAX_ROWS // len(fleets))
            raise InvalidInput(f"leads to more than {most} points", field="since")
        rows, reasons = await self._store.read(name, fleets, begin, until)
        response = pb.GetRegistrationSeriesResponse(
            step=request.step, since=timestamp_of(begin), until=timestamp_of(until)
        )
        found = {row.began_at: row for row in rows}
        latency = [0] * BUCKETS
        for at in points:
            point = response.points.add(at=timestamp_of(at))
            row = found.get(at)
            if row is not None:
                _fill(point, row)
                latency = list(map(int.__add__, latency, row.latency))
        _fill_latency(response.latency, latency)
        for reason in reasons:
            response.refusals.add(reason=reason.reason, count=reason.refusals)
        return response


def _fleets(fleet_id: str) -> Collection[str]:
    """The fleets whose rows are read. Another customer's fleet is like one without devices."""
    within = isolation.fleets.get()
    if not fleet_id:
        return (ALL_FLEETS,) if within is None else within
    check_identifier("fleet_id", fleet_id)
    return (fleet_id,) if within is None or fleet_id in within else ()


def _floor(moment: datetime, step: timedelta) -> datetime:
    return EPOCH + (moment - EPOCH) // step * step


def _earlier(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment - by
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _points(begin: datetime, until: datetime, step: timedelta) -> Sequence[datetime]:
    """The beginnings of the buckets; one more than allowed if there are too many."""
    wanted = max(0, -((begin - until) // step))
    return [begin + step * n for n in range(min(wanted, MAX_POINTS + 1))]


def _fill(point: pb.SeriesPoint, row: sa.Row[Any]) -> None:
    point.new_devices = row.new_devices
    point.known_devices = row.known_devices
    point.refused = row.refused
    _fill_latency(point.latency, row.latency)


def _fill_latency(latency: pb.Latency, counts: Sequence[int]) -> None:
    """Leaves the fields unset if there are no registrations."""
    for name, percent in (("p50_s", 50), ("p95_s", 95), ("p99_s", 99)):
        found = percentile_s(counts, percent)
        if found is not None:
            setattr(latency, name, found)
