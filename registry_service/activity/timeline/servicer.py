"""gRPC: what happened to a device lately."""

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from mooring.registry.v1 import timeline_pb2 as pb
from mooring.registry.v1 import timeline_pb2_grpc

from chassis import isolation
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access, WithinFleets, role
from chassis.validation import IDENTIFIER
from registry_service.activity.timeline.events import ANSWER_CHANGED, DROPPED
from registry_service.activity.timeline.store import TimelineStore
from registry_service.errors import DeviceNotFound

# By the values of the column.
KINDS = {name.removeprefix("EVENT_KIND_").lower(): number for name, number in pb.EventKind.items()}
REVOKE = "device.revoke_credentials"
# A broker that asked about a device that it does not serve.
NOT_TOLD = "BROKER_NOT_TOLD"


class TimelineServicer(timeline_pb2_grpc.TimelineServiceServicer):
    """The timeline of a device that the caller's token may see."""

    def __init__(self, store: TimelineStore) -> None:
        """`store` holds the events."""
        self._store = store

    @allows(WithinFleets(Access.VIEWER))
    async def GetTimeline(
        self, request: pb.GetTimelineRequest, context: Context
    ) -> pb.GetTimelineResponse:
        """Raises `DeviceNotFound`."""
        if not IDENTIFIER.fullmatch(request.uuid):
            raise DeviceNotFound("there is no such device")
        within = isolation.fleets.get()
        device = await self._store.device(request.uuid, within)
        rows = await self._store.events(device.id)
        recorded = [row for row in rows if row.kind != DROPPED]
        events = [*_own(device)]
        events += [_event(row, hides_others=within is not None) for row in recorded]
        if within is None and role.get() >= Access.ADMIN:
            # The audit log names the actor of a revocation too.
            revoked = pb.EVENT_KIND_CREDENTIALS_REVOKED
            events = [event for event in events if event.kind != revoked]
            events += map(_change, await self._store.changes(request.uuid, device.created_at))
        events.sort(key=_when, reverse=True)
        dropped = sum(row.times for row in rows if row.kind == DROPPED)
        return pb.GetTimelineResponse(events=events, dropped=dropped)


def _own(device: sa.Row[Any]) -> Iterator[pb.Event]:
    """The events that the device's row records."""
    is_registered = device.provisioned_by_key_id is not None and device.provisioned_at is not None
    if is_registered:
        yield _at(pb.EVENT_KIND_REGISTERED, device.provisioned_at)
    if not is_registered or device.created_at != device.provisioned_at:
        yield _at(pb.EVENT_KIND_CREATED, device.created_at)


def _at(kind: pb.EventKind.ValueType, moment: Any, **fields: Any) -> pb.Event:
    at = timestamp_of(moment)
    return pb.Event(kind=kind, first_at=at, last_at=at, count=1, **fields)


def _event(row: sa.Row[Any], *, hides_others: bool) -> pb.Event:
    """`hides_others`: brokers that the device was not told of may be other customers'."""
    details: Mapping[str, Any] = row.details or {}
    is_answer = row.kind == ANSWER_CHANGED
    return pb.Event(
        kind=KINDS[row.kind],
        first_at=timestamp_of(row.first_at),
        last_at=timestamp_of(row.last_at),
        count=row.times,
        reason="" if is_answer else row.what,
        address=row.address or "",
        broker_id=0 if hides_others and row.what == NOT_TOLD else row.broker_id,
        before=_answer(details.get("before")),
        after=_answer(details.get("after")),
        generation=row.what if is_answer else "",
    )


def _answer(told: Mapping[str, Any] | None) -> pb.Answer | None:
    if told is None:
        return None
    return pb.Answer(broker_ids=told["broker_ids"], source=told["source"])


def _change(line: sa.Row[Any]) -> pb.Event:
    is_revoked = line.action == REVOKE
    return _at(
        pb.EVENT_KIND_CREDENTIALS_REVOKED if is_revoked else pb.EVENT_KIND_CHANGED,
        line.at,
        actor=line.actor,
        action=line.action,
        changed_from=line.before,
        changed_to=line.after,
    )


def _when(event: pb.Event) -> tuple[int, int]:
    return event.last_at.seconds, event.last_at.nanos
