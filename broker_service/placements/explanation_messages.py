"""Converts requests for explanations, and explanations, between protobuf and plain values."""

from dataclasses import replace
from typing import TypedDict

from mooring.broker.v1 import resolution_pb2 as pb
from msgspec import structs

from broker_service.errors import BrokerUnknown, FleetUnknown, PoolUnknown
from broker_service.explanation import Explanation, Facts, Reason, supposing
from broker_service.resolution import Directory, Placement, Source
from chassis.errors import Forbidden, InvalidInput
from chassis.validation import check_identifier, check_range, check_text
from domain.pools import Situation

MAX_SUPPOSED = 1_000
SOURCES = {
    Source.DEVICE: pb.SOURCE_DEVICE,
    Source.ROLLOUT: pb.SOURCE_ROLLOUT,
    Source.FLEET: pb.SOURCE_FLEET,
    Source.REGION: pb.SOURCE_REGION,
    Source.DEFAULT_POOL: pb.SOURCE_DEFAULT_POOL,
    Source.DEFAULT: pb.SOURCE_DEFAULT,
    Source.ENVIRONMENT: pb.SOURCE_ENVIRONMENT,
}
SITUATIONS = {
    Situation.USUAL: pb.SITUATION_UNSPECIFIED,
    Situation.FAILOVER: pb.SITUATION_FAILOVER,
    Situation.DOWN: pb.SITUATION_DOWN,
    Situation.DOUBTED: pb.SITUATION_DOUBTED,
    Situation.OVERFILLED: pb.SITUATION_OVERFILLED,
}


def facts_in(request: pb.ExplainResolutionRequest, own: Facts) -> Facts:
    """The device's facts, with the request's hypothetical ones. Raises `InvalidInput`."""
    given, facts = request.fields, own
    for name in request.mask.paths:
        match name:
            case "mqtt_broker_id":
                broker_id = given.mqtt_broker_id if given.HasField(name) else None
                _check_id(name, broker_id)
                facts = replace(facts, placement=_replaced(facts, broker_id=broker_id))
            case "fleet_id":
                fleet_id = given.fleet_id if given.HasField(name) else None
                if fleet_id is not None:
                    check_identifier(name, fleet_id)
                placement = _replaced(facts, fleet_id=fleet_id, fleet_revision=0)
                facts = replace(facts, placement=placement)
            case "pool_id":
                pool_id = given.pool_id if given.HasField(name) else None
                _check_id(name, pool_id)
                facts = replace(facts, placement=_replaced(facts, pool_id=pool_id))
            case "region":
                check_text(name, given.region, longest=64)
                facts = replace(facts, region=given.region)
            case "location":
                facts = replace(facts, location=_location_in(given))
            case _:
                raise InvalidInput("names an unknown fact of a device", field="mask")
    return facts


def require_nothing_supposed(request: pb.ExplainResolutionRequest) -> None:
    """Raises `Forbidden` for a request with hypothetical facts."""
    supposed = (request.mask.paths, request.active_broker_ids, request.inactive_broker_ids)
    if any(supposed) or request.HasField("default_broker_id"):
        raise Forbidden("a token that is restricted to fleets cannot suppose facts of devices")


def named_in(request: pb.ExplainResolutionRequest) -> list[Placement]:
    """All brokers that the hypothetical facts name, to check whether they exist. Raises
    `InvalidInput`.
    """
    both = set(request.active_broker_ids) & set(request.inactive_broker_ids)
    if both:
        raise InvalidInput(f"broker {min(both)} is active too", field="inactive_broker_ids")
    named: list[Placement] = []
    for field, ids in _supposed(request):
        if len(ids) > MAX_SUPPOSED:
            raise InvalidInput(f"at most {MAX_SUPPOSED}", field=field)
        for broker_id in ids:
            _check_id(field, broker_id)
            named.append(Placement(broker_id))
    return named


def unknown_in(
    request: pb.ExplainResolutionRequest, facts: Facts, directory: Directory
) -> InvalidInput | None:
    """The error if the hypothetical facts name an unknown broker or fleet; else None."""
    for field, ids in _supposed(request):
        if not directory.brokers.keys() >= set(ids):
            return BrokerUnknown("there is no such broker", field=field)
    supposed, placement = set(request.mask.paths), facts.placement
    if "mqtt_broker_id" in supposed and not directory.knows(Placement(placement.broker_id)):
        return BrokerUnknown("there is no such broker", field="mqtt_broker_id")
    if "pool_id" in supposed and not directory.knows(Placement(pool_id=placement.pool_id)):
        return PoolUnknown("there is no such pool", field="pool_id")
    if "fleet_id" in supposed and not directory.knows(Placement(None, placement.fleet_id)):
        return FleetUnknown("there is no such fleet", field="fleet_id")
    return None


def directory_in(request: pb.ExplainResolutionRequest, directory: Directory) -> Directory:
    """The directory with the request's hypothetical changes."""
    return supposing(
        directory,
        active_ids=request.active_broker_ids,
        inactive_ids=request.inactive_broker_ids,
        default_id=request.default_broker_id or None
        if request.HasField("default_broker_id")
        else directory.default_id,
    )


class Parts(TypedDict):
    """The fields of a response that an explanation fills in."""

    source: pb.Source.ValueType
    steps: list[pb.ExplainedStep]
    situation: pb.Situation.ValueType
    pool_id: int
    brokers: list[pb.ExplainedBroker]


def parts_of(explained: Explanation) -> Parts:
    """The explanation as fields of the response."""
    return Parts(
        source=SOURCES[explained.source] if explained.source else pb.SOURCE_UNSPECIFIED,
        steps=[
            pb.ExplainedStep(
                source=SOURCES[step.source],
                has_decided=step.reason is Reason.DECIDED,
                reason=step.reason,
                explanation=step.explanation,
                broker_id=step.broker_id or 0,
                pool_id=step.pool_id or 0,
            )
            for step in explained.steps
        ],
        situation=SITUATIONS[explained.situation],
        pool_id=explained.pool_id or 0,
        brokers=[
            pb.ExplainedBroker(
                broker_id=broker.broker_id,
                state=broker.health.state,
                is_full=broker.health.is_full,
                is_home=broker.is_home,
                is_chosen=broker.is_chosen,
                explanation=broker.explanation,
            )
            for broker in explained.brokers
        ],
    )


def fields_of(facts: Facts) -> pb.PlacementFields:
    """The facts as a message."""
    location = None
    if facts.location is not None:
        latitude, longitude = facts.location
        location = pb.Location(latitude=latitude, longitude=longitude)
    return pb.PlacementFields(
        mqtt_broker_id=facts.placement.broker_id,
        fleet_id=facts.placement.fleet_id,
        region=facts.region or None,
        location=location,
        pool_id=facts.placement.pool_id,
    )


def _supposed(request: pb.ExplainResolutionRequest) -> list[tuple[str, list[int]]]:
    """The brokers that the hypothetical facts name, by field."""
    default_id = request.default_broker_id
    return [
        ("active_broker_ids", list(request.active_broker_ids)),
        ("inactive_broker_ids", list(request.inactive_broker_ids)),
        ("default_broker_id", [default_id] if default_id else []),
    ]


def _replaced(facts: Facts, **changes: object) -> Placement:
    return structs.replace(facts.placement, **changes)


def _location_in(given: pb.PlacementFields) -> tuple[float, float] | None:
    if not given.HasField("location"):
        return None
    check_range("location.latitude", given.location.latitude, -90, 90)
    check_range("location.longitude", given.location.longitude, -180, 180)
    return given.location.latitude, given.location.longitude


def _check_id(field: str, broker_id: int | None) -> None:
    if broker_id is not None and broker_id < 1:
        raise InvalidInput("must be at least 1", field=field)
