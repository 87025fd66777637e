"""Explains which broker serves a device, and why, also for hypothetical facts.

The routes are `/api/v1/devices/{uuid}/broker` and `/api/v1/resolution/explain`.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Router, get, post
from litestar.params import JSONBody
from mooring.broker.v1 import resolution_pb2 as pb
from mooring.registry.v1 import devices_pb2
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import Caller, CallerRequest
from gateway.administration.device_types import DeviceLocation
from gateway.administration.devices import DeviceUuid
from gateway.administration.fields import Id, mask, moment_of, named, optional, present
from gateway.answers import SITUATIONS, SOURCES
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import MOMENT, UUID

BrokerIds = Annotated[list[Id], documented(maxItems=1000)]


class Supposition(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The supposed facts. A fact that is left out is as it is, null removes it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"mqtt_broker_id": None, "default_broker_id": 1}

    mqtt_broker_id: Annotated[Id, Meta(description="A pin.")] | UnsetType | None = UNSET
    pool_id: Annotated[Id, Meta(description="The device's pool.")] | UnsetType | None = UNSET
    fleet_id: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)] | UnsetType | None = UNSET
    region: Annotated[str, documented(maxLength=64)] | UnsetType | None = UNSET
    location: DeviceLocation | UnsetType | None = UNSET
    active_broker_ids: (
        Annotated[BrokerIds, Meta(description="Brokers to take for active.")] | UnsetType
    ) = UNSET
    inactive_broker_ids: (
        Annotated[BrokerIds, Meta(description="Brokers to take for inactive.")] | UnsetType
    ) = UNSET
    default_broker_id: (
        Annotated[Id, Meta(description="The broker to take for the default; null: none.")]
        | UnsetType
        | None
    ) = UNSET


class PlacementFacts(Struct, kw_only=True, frozen=True):
    """The facts that can decide a device's broker."""

    mqtt_broker_id: Annotated[int, Meta(description="The pin.")] | None
    pool_id: Annotated[int, Meta(description="The device's pool; the pin comes first.")] | None
    fleet_id: str | None
    region: str | None
    location: DeviceLocation | None


class ExplainedStep(Struct, kw_only=True, frozen=True):
    """A step of the chain: whether it decided, and why or why not."""

    step: Annotated[
        str,
        Meta(description="device, rollout, fleet, region, default_pool, default or environment."),
    ]
    has_decided: bool
    reason: Annotated[str, Meta(description="UPPER_SNAKE and stable, for programs.")]
    explanation: Annotated[str, Meta(description="For people; may change.")]
    mqtt_broker_id: Annotated[int, Meta(description="The broker that the step names.")] | None
    pool_id: Annotated[int, Meta(description="The pool that the step names.")] | None


class ExplainedBroker(Struct, kw_only=True, frozen=True):
    """A broker that may serve the device."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "mqtt_broker_id": 1,
        "state": "up",
        "is_full": False,
        "is_home": True,
        "is_chosen": True,
        "explanation": "the device's own broker",
    }

    mqtt_broker_id: int
    state: Annotated[str, Meta(description="unknown, up, degraded or down.")]
    is_full: bool
    is_home: Annotated[bool, Meta(description="Whether the device belongs to it.")]
    is_chosen: Annotated[bool, Meta(description="Whether it serves the device now.")]
    explanation: Annotated[str, Meta(description="For people; may change.")]


def _step(step: str, reason: str, explanation: str, broker_id: int | None = None) -> dict[str, Any]:
    """The example of a step."""
    return {
        "step": step,
        "has_decided": reason == "DECIDED",
        "reason": reason,
        "explanation": explanation,
        "mqtt_broker_id": broker_id,
        "pool_id": None,
    }


class Explanation(Struct, kw_only=True, frozen=True):
    """The broker that serves a device, and why."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "source": "default",
        "mqtt_broker_id": 1,
        "url": "mqtt://localhost:5883",
        "stale": False,
        "pool_id": None,
        "situation": None,
        "brokers": [ExplainedBroker.EXAMPLE],
        "facts": {
            "mqtt_broker_id": None,
            "pool_id": None,
            "fleet_id": "demo",
            "region": None,
            "location": None,
        },
        "steps": [
            _step("device", "NO_PIN", "the device is not pinned to a broker or a pool"),
            _step("rollout", "NO_ROLLOUT", "the fleet demo has no rollout under way"),
            _step(
                "fleet", "FLEET_HAS_NO_BROKER", "the fleet demo has no broker or pool of its own"
            ),
            _step("region", "NO_REGION", "the device has no region"),
            _step("default_pool", "NO_DEFAULT_POOL", "no pool is the default"),
            _step("default", "DECIDED", "broker 1 is the default", 1),
            _step("environment", "DECIDED_EARLIER", "not asked: the default has decided"),
        ],
    }

    source: (
        Annotated[
            str, Meta(description="The step that decided; null: no broker can serve the device.")
        ]
        | None
    )
    mqtt_broker_id: (
        Annotated[
            int,
            Meta(description="Null if the broker is that of MQTT_BROKER_URL, or if there is none."),
        ]
        | None
    )
    url: str | None
    stale: Annotated[
        bool,
        Meta(
            description="True if the answer may be outdated, because the database cannot "
            "be reached."
        ),
    ]
    pool_id: Annotated[int, Meta(description="The pool that decided.")] | None
    situation: (
        Annotated[
            str,
            Meta(
                description="What is unusual: failover (another broker serves, because the "
                "device's own is down), down (it is down, and no other may serve), doubted (so "
                "many members of the pool look down that the probes are not believed) or "
                "overfilled (all members are full)."
            ),
        ]
        | None
    )
    brokers: Annotated[
        list[ExplainedBroker],
        Meta(description="The broker that serves, then the fallbacks, in order."),
    ]
    facts: Annotated[PlacementFacts, Meta(description="The facts of the decision.")]
    steps: Annotated[
        list[ExplainedStep],
        Meta(description="The steps in order; each step after the deciding one names that one."),
    ]


class DeviceExplanation(Explanation, kw_only=True, frozen=True):
    """The broker that would serve the device now, and the brokers of its last answer."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **Explanation.EXAMPLE,
        "uuid": UUID,
        "told_broker_ids": [1],
        "told_at": MOMENT,
    }

    uuid: str
    told_broker_ids: Annotated[
        list[int], Meta(description="The brokers of its last answer, in order of preference.")
    ]
    told_at: datetime | None


async def _explained(caller: Caller, uuid: str, supposition: Supposition | None) -> dict[str, Any]:
    """The members of an `Explanation`."""
    values = {} if supposition is None else named(supposition)
    brokers = {
        "active_broker_ids": values.pop("active_broker_ids", []),
        "inactive_broker_ids": values.pop("inactive_broker_ids", []),
        # Null in the body is 0 in the message: no broker is the default.
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
        "pool_id": answer.pool_id or None,
        "situation": SITUATIONS[answer.situation],
        "brokers": [
            ExplainedBroker(
                mqtt_broker_id=broker.broker_id,
                state=broker.state,
                is_full=broker.is_full,
                is_home=broker.is_home,
                is_chosen=broker.is_chosen,
                explanation=broker.explanation,
            )
            for broker in answer.brokers
        ],
        "facts": PlacementFacts(
            mqtt_broker_id=optional(facts, "mqtt_broker_id"),
            pool_id=optional(facts, "pool_id"),
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
                pool_id=step.pool_id or None,
            )
            for step in answer.steps
        ],
    }


async def _explained_device(
    caller: Caller, uuid: str, supposition: Supposition | None
) -> DeviceExplanation:
    # The device is read first, so that a device that does not exist is 404 with any facts.
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
    summary="Explain which broker serves a device",
    reasons=("DEVICE_NOT_FOUND", "PLACEMENT_UNKNOWN"),
)
async def explain_device(request: CallerRequest, uuid: DeviceUuid) -> DeviceExplanation:
    return await _explained_device(request.auth, uuid, None)


@post(
    "/devices/{uuid:str}/broker/explain",
    access=Access.VIEWER,
    summary="Explain which broker would serve a device if some facts were different",
    description="Changes nothing.",
    status_code=200,
    dto=StrictJson[Supposition],
    reasons=(
        "DEVICE_NOT_FOUND",
        "BROKER_UNKNOWN",
        "FLEET_UNKNOWN",
        "POOL_UNKNOWN",
        "PLACEMENT_UNKNOWN",
    ),
)
async def explain_device_if(
    request: CallerRequest, uuid: DeviceUuid, data: JSONBody[Supposition]
) -> DeviceExplanation:
    return await _explained_device(request.auth, uuid, data)


@post(
    "/resolution/explain",
    access=Access.VIEWER,
    summary="Explain which broker would serve a device with the given facts",
    description="Changes nothing. A fact that is left out counts as absent.",
    status_code=200,
    dto=StrictJson[Supposition],
    reasons=("BROKER_UNKNOWN", "FLEET_UNKNOWN", "POOL_UNKNOWN", "PLACEMENT_UNKNOWN"),
)
async def explain_facts(request: CallerRequest, data: JSONBody[Supposition]) -> Explanation:
    return Explanation(**await _explained(request.auth, "", data))


ROUTES = Router(
    "/",
    route_handlers=[explain_device, explain_device_if, explain_facts],
    tags=["which broker"],
)
