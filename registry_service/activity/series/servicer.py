"""gRPC: the series of registrations and refusals."""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp
from mooring.registry.v1 import series_pb2 as pb
from mooring.registry.v1 import series_pb2_grpc

from chassis import isolation
from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import moment_of
from chassis.trust import Access, WithinFleets
from chassis.validation import check_identifier
from registry_service.activity.series.counts import ALL_FLEETS
from registry_service.activity.series.latency import BUCKETS, percentiles_s
from registry_service.activity.series.ranges import HOUR_S, MINUTE_S, range_of
from registry_service.activity.series.store import SeriesStore

ROW_S: Mapping[int, int] = {pb.STEP_MINUTE: MINUTE_S, pb.STEP_HOUR: HOUR_S}
# The points of an answer without `since`.
USUAL_POINTS = {pb.STEP_MINUTE: 60, pb.STEP_HOUR: 24}
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
        if request.step not in ROW_S:
            raise InvalidInput("must be a minute or an hour", field="step")
        row_s, fleets, now = ROW_S[request.step], _fleets(request.fleet_id), datetime.now(UTC)
        until_s = math.ceil(_seconds(moment_of(request, "until") or now))
        since = moment_of(request, "since")
        if since is None:
            since_s = (until_s - 1) // row_s * row_s - row_s * (USUAL_POINTS[request.step] - 1)
        else:
            since_s = math.floor(_seconds(since))
        span = range_of(row_s, since_s, until_s, math.ceil(_seconds(now)), len(fleets))
        rows, reasons = await self._store.read(span, fleets)
        response = pb.GetRegistrationSeriesResponse(
            point_s=span.point_s,
            since=_timestamp(span.rows.begin_s),
            until=_timestamp(span.rows.end_s),
        )
        latency = [0] * BUCKETS
        for at_s in span.points:
            point = response.points.add(at=_timestamp(at_s))
            if (row := rows.get(at_s)) is not None:
                _fill(point, row)
                latency = list(map(int.__add__, latency, row.latency))
        _fill_latency(response.latency, latency)
        for reason, count in reasons:
            response.refusals.add(reason=reason, count=count)
        return response


def _fleets(fleet_id: str) -> Collection[str]:
    """The fleets whose rows are read. Another customer's fleet is like one without devices."""
    within = isolation.fleets.get()
    if not fleet_id:
        return (ALL_FLEETS,) if within is None else within
    check_identifier("fleet_id", fleet_id)
    return (fleet_id,) if within is None or fleet_id in within else ()


def _seconds(moment: datetime) -> float:
    """Exact up to microseconds, also before 1970."""
    return (moment - EPOCH) / timedelta(seconds=1)


def _timestamp(time_s: int) -> Timestamp:
    return Timestamp(seconds=time_s)


def _fill(point: pb.SeriesPoint, row: sa.Row[Any]) -> None:
    point.new_devices = row.new_devices
    point.known_devices = row.known_devices
    point.refused = row.refused
    _fill_latency(point.latency, row.latency)


def _fill_latency(latency: pb.Latency, counts: Sequence[int]) -> None:
    """Leaves the fields unset if there are no registrations."""
    if found := percentiles_s(counts, (50, 95, 99)):
        latency.p50_s, latency.p95_s, latency.p99_s = found
