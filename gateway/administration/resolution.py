"""Which broker serves a device and why, also "what if": `/api/v1/devices/{uuid}/broker`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Router, get, post
from litestar.params import JSONBody
from mooring.broker.v1 import resolution_pb2 as pb
from mooring.registry.v1 import devices_pb2
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import Caller, CallerRequest
from gateway.administration.devices import DeviceLocation, DeviceUuid
from gateway.administration.fields import Id, mask, moment_of, named, optional, present
from gateway.answers import SOURCES
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import MOMENT, UUID

BrokerIds = Annotated[list[Id], documented(maxItems=1000)]


class Supposition(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is supposed. A fact that is not named is as it is, null takes it away."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"mqtt_broker_id": None, "default_broker_id": 1}

    mqtt_broker_id: Annotated[Id, Meta(description="A pin.")] | UnsetType | None = UNSET
    fleet_id: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)] | UnsetType | None = UNSET
    region: Annotated[str, documented(maxLength=64)] | UnsetType | None = UNSET
    location: DeviceLocation | UnsetType | None = UNSET
    active_broker_ids: (
        Annotated[BrokerIds, Meta(description="Brokers that are active, whatever they are.")]
        | UnsetType
    ) = UNSET
    inactive_broker_ids: (
        Annotated[BrokerIds, Meta(description="Brokers that are inactive, whatever they are.")]
        | UnsetType
    ) = UNSET
    default_broker_id: (
        Annotated[Id, Meta(description="The default; null: there is none.")] | UnsetType | None
    ) = UNSET


class PlacementFacts(Struct, kw_only=True, frozen=True):
    """What could decide a device's broker."""

    mqtt_broker_id: Annotated[int, Meta(description="The pin.")] | None
    fleet_id: str | None
    region: str | None
    location: DeviceLocation | None


class ExplainedStep(Struct, kw_only=True, frozen=True):
    """A step of the chain: whether it decided, and why or why not."""

    step: Annotated[
        str, Meta(description="device, rollout, fleet, region, default or environment.")
    ]
    has_decided: bool
    reason: Annotated[str, Meta(description="UPPER_SNAKE and stable, for programs.")]
    explanation: Annotated[str, Meta(description="For people; may change.")]
    mqtt_broker_id: Annotated[int, Meta(description="The broker that the step names.")] | None


def _step(step: str, reason: str, explanation: str, broker_id: int | None = None) -> dict[str, Any]:
    """The example of a step."""
    return {
        "step": step,
        "has_decided": reason == "DECIDED",
        "reason": reason,
        "explanation": explanation,
        "mqtt_broker_id": broker_id,
    }


class Explanation(Struct, kw_only=True, frozen=True):
    """Which broker, and why."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "source": "default",
        "mqtt_broker_id": 1,
        "url": "mqtt://localhost:5883",
        "stale": False,
        "facts": {"mqtt_broker_id": None, "fleet_id": "demo", "region": None, "location": None},
        "steps": [
            _step("device", "NO_PIN", "the device is not pinned to a broker"),
            _step("rollout", "NO_ROLLOUT", "the fleet demo has no rollout under way"),
            _step("fleet", "FLEET_HAS_NO_BROKER", "the fleet demo has no broker of its own"),
            _step("region", "NO_REGION", "the device has no region"),
            _step("default", "DECIDED", "broker 1 is the default", 1),
            _step("environment", "DECIDED_EARLIER", "not asked: the default has decided"),
        ],
    }

    source: (
        Annotated[str, Meta(description="The step that decided; null: nothing may serve.")] | None
    )
    mqtt_broker_id: (
        Annotated[int, Meta(description="Null where it is MQTT_BROKER_URL, or nothing.")] | None
    )
    url: str | None
    stale: Annotated[
        bool, Meta(description="Whether the database cannot be asked if this is still so.")
    ]
    facts: Annotated[PlacementFacts, Meta(description="What it was decided from.")]
    steps: Annotated[
        list[ExplainedStep], Meta(description="In order; those after the one that decided say so.")
    ]


class DeviceExplanation(Explanation, kw_only=True, frozen=True):
    """Which broker would serve the device now, and which it was told of."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **Explanation.EXAMPLE,
        "uuid": UUID,
        "told_broker_ids": [1],
        "told_at": MOMENT,
    }

    uuid: str
    told_broker_ids: Annotated[
        list[int], Meta(description="Brokers that its last answer named, the first choice first.")
    ]
    told_at: datetime | None


async def _explained(caller: Caller, uuid: str, supposition: Supposition | None) -> dict[str, Any]:
    """The members of an `Explanation`."""
    values = {} if supposition is None else named(supposition)
    brokers = {
        "active_broker_ids": values.pop("active_broker_ids", []),
        "inactive_broker_ids": values.pop("inactive_broker_ids", []),
        # The proto's 0 is the body's null: there is no default.
        "default_broker_id": (values.pop("default_broker_id") or 0)
        if "default_broker_id" in values
        else None,
    }
    fields = present(values)
    if "location" in fields:
        fields["location"] = structs.asdict(fields["location"])
    answer = await caller.ask_broker_service(
        caller.services.resolution.ExplainResolution,
        pb.ExplainResolutionRequest(
            device_uuid=uuid, fields=pb.PlacementFields(**fields), mask=mask(values), **brokers
        ),
    )
    facts = answer.fields
    return {
        "source": SOURCES[answer.source] if answer.source else None,
        "mqtt_broker_id": answer.broker.id or None,
        "url": answer.url or None,
        "stale": answer.stale,
        "facts": PlacementFacts(
            mqtt_broker_id=optional(facts, "mqtt_broker_id"),
            fleet_id=optional(facts, "fleet_id"),
            region=optional(facts, "region"),
            location=DeviceLocation(facts.location.latitude, facts.location.longitude)
            if facts.HasField("location")
            else None,
        ),
        "steps": [
            ExplainedStep(
                step=SOURCES[step.source],
                has_decided=step.has_decided,
                reason=step.reason,
                explanation=step.explanation,
                mqtt_broker_id=step.broker_id or None,
            )
            for step in answer.steps
        ],
    }


async def _explained_device(
    caller: Caller, uuid: str, supposition: Supposition | None
) -> DeviceExplanation:
    # First: a device that does not exist is 404, whatever is supposed of it.
    answer = await caller.ask_registry(
        caller.services.devices.GetDevice, devices_pb2.GetDeviceRequest(uuid=uuid)
    )
    return DeviceExplanation(
        uuid=uuid,
        told_broker_ids=list(answer.device.told_broker_ids),
        told_at=moment_of(answer.device, "told_at"),
        **await _explained(caller, uuid, supposition),
    )


@get(
    "/devices/{uuid:str}/broker",
    access=WithinFleets(Access.VIEWER),
    summary="Which broker serves a device, and why",
    reasons=("DEVICE_NOT_FOUND", "PLACEMENT_UNKNOWN"),
)
async def explain_device(request: CallerRequest, uuid: DeviceUuid) -> DeviceExplanation:
    return await _explained_device(request.auth, uuid, None)


@post(
    "/devices/{uuid:str}/broker/explain",
    access=Access.VIEWER,
    summary="Which broker would serve a device if something were different",
    description="Changes nothing.",
    status_code=200,
    dto=StrictJson[Supposition],
    reasons=("DEVICE_NOT_FOUND", "BROKER_UNKNOWN", "FLEET_UNKNOWN", "PLACEMENT_UNKNOWN"),
)
async def explain_device_if(
    request: CallerRequest, uuid: DeviceUuid, data: JSONBody[Supposition]
) -> DeviceExplanation:
    return await _explained_device(request.auth, uuid, data)


@post(
    "/resolution/explain",
    access=Access.VIEWER,
    summary="Which broker would serve a device of which this is known",
    description="Changes nothing. A fact that is not named is none.",
    status_code=200,
    dto=StrictJson[Supposition],
    reasons=("BROKER_UNKNOWN", "FLEET_UNKNOWN", "PLACEMENT_UNKNOWN"),
)
async def explain_facts(request: CallerRequest, data: JSONBody[Supposition]) -> Explanation:
    return Explanation(**await _explained(request.auth, "", data))


ROUTES = Router(
    "/",
    route_handlers=[explain_device, explain_device_if, explain_facts],
    tags=["which broker"],
)
