"""What happened to a device lately: `/api/v1/devices/{uuid}/timeline`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, cast

import msgspec
from litestar import Router, get
from mooring.registry.v1 import timeline_pb2 as pb
from msgspec import Meta, Struct

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.devices import DeviceUuid
from gateway.administration.fields import moment_of, optional
from gateway.examples import MOMENT

KINDS = {number: name.removeprefix("EVENT_KIND_").lower() for name, number in pb.EventKind.items()}


class AnswerToDevice(Struct, kw_only=True, frozen=True):
    """What an answer to a device named."""

    broker_ids: Annotated[
        list[int], Meta(description="The first choice first; empty for `MQTT_BROKER_URL`.")
    ]
    source: Annotated[str, Meta(description="The step that decided it.")]


class DeviceEvent(Struct, kw_only=True, frozen=True):
    """Something that happened to a device. Equal events of an hour are one, with a count."""

    kind: Annotated[
        str,
        Meta(
            description="`created`, `registered`, `registration_refused`, `settings_refused` (it "
            "asked for its broker), `rotation_refused`, `answer_changed`, `connected` and "
            "`connect_refused` (at a broker that asks), `credentials_rotated`, "
            "`credentials_revoked`, `reported_connected` and `reported_failed` (it reported "
            "another state or broker than before), or `changed` (by an administrator)."
        ),
    ]
    at: Annotated[datetime | None, Meta(description="When the last of the equal events was.")]
    first_at: Annotated[datetime | None, Meta(description="When the first was.")]
    count: int
    reason: Annotated[str | None, Meta(description="Of a refusal.")]
    address: Annotated[
        str | None,
        Meta(description="The IP address of the device; null if it is not known or was cleared."),
    ]
    broker_id: Annotated[int | None, Meta(description="The broker that asked, or of the report.")]
    before: Annotated[AnswerToDevice | None, Meta(description="Of an answer that changed.")]
    after: Annotated[AnswerToDevice | None, Meta(description="Of an answer that changed.")]
    generation: Annotated[
        str | None, Meta(description="Of an answer that changed: its `mqtt.generation`.")
    ]
    actor: Annotated[str | None, Meta(description="Of a change: the name of the token.")]
    action: Annotated[str | None, Meta(description="Of a change: as in the audit log.")]
    changed_from: Annotated[
        dict[str, Any] | None, Meta(description="The changed fields with their values before.")
    ]
    changed_to: Annotated[
        dict[str, Any] | None, Meta(description="The changed fields with their values after.")
    ]


class Timeline(Struct, kw_only=True, frozen=True):
    """What happened to a device lately, the newest first."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "items": [
            {
                "kind": "registered",
                "at": MOMENT,
                "first_at": MOMENT,
                "count": 1,
                "reason": None,
                "address": None,
                "broker_id": None,
                "before": None,
                "after": None,
                "generation": None,
                "actor": None,
                "action": None,
                "changed_from": None,
                "changed_to": None,
            }
        ],
        "dropped": 0,
    }

    items: list[DeviceEvent]
    dropped: Annotated[
        int,
        Meta(description="Events that were not written, because there were too many at once."),
    ]


def _answer(event: pb.Event, name: str) -> AnswerToDevice | None:
    if not event.HasField(cast("Any", name)):
        return None
    told: pb.Answer = getattr(event, name)
    return AnswerToDevice(broker_ids=list(told.broker_ids), source=told.source)


def _raw(event: pb.Event, name: str) -> dict[str, Any] | None:
    """JSON that the encoder copies without reading it."""
    text = optional(event, name)
    return None if text is None else cast("dict[str, Any]", msgspec.Raw(text.encode()))


def _json(event: pb.Event) -> DeviceEvent:
    return DeviceEvent(
        kind=KINDS[event.kind],
        at=moment_of(event, "last_at"),
        first_at=moment_of(event, "first_at"),
        count=event.count,
        reason=event.reason or None,
        address=event.address or None,
        broker_id=event.broker_id or None,
        before=_answer(event, "before"),
        after=_answer(event, "after"),
        generation=event.generation or None,
        actor=event.actor or None,
        action=event.action or None,
        changed_from=_raw(event, "changed_from"),
        changed_to=_raw(event, "changed_to"),
    )


@get(
    "/devices/{uuid:str}/timeline",
    access=WithinFleets(Access.VIEWER),
    summary="Show what happened to a device",
    description="The newest 25 refusals and the newest 25 other events, and for an `admin` whose "
    "token is not restricted the changes by administrators, from the audit log. Events are "
    "written a few seconds late.",
    reasons=("DEVICE_NOT_FOUND",),
)
async def get_device_timeline(request: CallerRequest, uuid: DeviceUuid) -> Timeline:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.timeline.GetTimeline, pb.GetTimelineRequest(uuid=uuid)
    )
    return Timeline(items=[*map(_json, answer.events)], dropped=answer.dropped)


ROUTES = Router("/", route_handlers=[get_device_timeline], tags=["devices"])
