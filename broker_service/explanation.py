"""Explains a resolution: the finding of each step, for people and for programs. An explanation is
made from the result of `resolve`, so the two cannot disagree. Facts and the directory may be
hypothetical.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from msgspec import structs

from broker_service.resolution import (
    Broker,
    Directory,
    Finding,
    FleetRollout,
    FleetRule,
    Placement,
    Resolution,
    Source,
    Step,
    resolve,
)
from domain.waves import POSITIONS, is_reached, position


class Reason(StrEnum):
    """Why a step decided or not. Programs compare these values, so they do not change."""

    DECIDED = "DECIDED"
    DECIDED_EARLIER = "DECIDED_EARLIER"  # an earlier step decided
    NO_PIN = "NO_PIN"
    NO_FLEET = "NO_FLEET"
    NO_ROLLOUT = "NO_ROLLOUT"
    NOT_REACHED = "NOT_REACHED"  # the fleet's rollout has not reached the device
    FLEET_HAS_NO_BROKER = "FLEET_HAS_NO_BROKER"
    NO_REGION = "NO_REGION"
    REGION_HAS_NO_BROKER = "REGION_HAS_NO_BROKER"
    NO_DEFAULT = "NO_DEFAULT"
    FLEET_IS_RESTRICTED = "FLEET_IS_RESTRICTED"  # so its devices do not get MQTT_BROKER_URL
    BROKER_INACTIVE = "BROKER_INACTIVE"
    BROKER_NOT_ALLOWED = "BROKER_NOT_ALLOWED"  # the fleet is restricted to other brokers
    BROKER_UNKNOWN = "BROKER_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a device that can decide its broker."""

    placement: Placement = field(default_factory=Placement)
    region: str = ""
    # Latitude and longitude in degrees. No step of the resolution uses them yet.
    location: tuple[float, float] | None = None
    # Empty if the uuid is not known. Then only a rollout at 100 % reaches the device.
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """The result of one step, and its reason."""

    source: Source
    reason: Reason
    # A sentence for people.
    explanation: str
    # The broker that the step names, even if it is not chosen.
    broker_id: int | None = None


def explain(facts: Facts, directory: Directory) -> tuple[Resolution, tuple[ExplainedStep, ...]]:
    """The resolution, and all its steps in order, of which at most one decides."""
    resolution = resolve(facts.placement, directory)
    found = {step.source: step for step in resolution.steps}
    steps: list[ExplainedStep] = []
    decided_by: Source | None = None
    for source in Source:
        if decided_by is None:
            step = _explained(source, found.get(source), resolution, facts, directory)
        else:
            step = ExplainedStep(
                source, Reason.DECIDED_EARLIER, f"not asked: {_NAMES[decided_by]} has decided"
            )
        if step.reason is Reason.DECIDED:
            decided_by = source
        steps.append(step)
    return resolution, tuple(steps)


def reached(facts: Facts, directory: Directory) -> Facts:
    """The facts, with the device's wave according to `directory`, also for a hypothetical fleet. So
    the wave agrees with the explanation of the rollout.
    """
    rollout = _rollout_of(facts, directory)
    is_in = rollout is not None and is_reached(rollout.percent, _place(facts, rollout))
    wave = rollout.salt if rollout and is_in else ""
    return replace(facts, placement=structs.replace(facts.placement, wave=wave))


def _rollout_of(facts: Facts, directory: Directory) -> FleetRollout | None:
    rule = directory.fleets.get(facts.placement.fleet_id or "")
    return rule.rollout if rule else None


def _place(facts: Facts, rollout: FleetRollout) -> int:
    """The device's position in the rollout; the last one if it is not known."""
    return position(rollout.salt, facts.uuid) if facts.uuid else POSITIONS - 1


def supposing(
    directory: Directory,
    *,
    active_ids: Iterable[int] = (),
    inactive_ids: Iterable[int] = (),
    default_id: int | None,
) -> Directory:
    """A copy of the directory in which these brokers are active, inactive or the default."""
    changed = {broker_id: Broker(broker_id, is_active=True) for broker_id in active_ids}
    changed |= {broker_id: Broker(broker_id, is_active=False) for broker_id in inactive_ids}
    return replace(directory, brokers={**directory.brokers, **changed}, default_id=default_id)


_NAMES = {
    Source.DEVICE: "the device's pin",
    Source.ROLLOUT: "the broker of the fleet's rollout",
    Source.FLEET: "the fleet's broker",
    Source.REGION: "the region's broker",
    Source.DEFAULT: "the default",
    Source.ENVIRONMENT: "MQTT_BROKER_URL",
}


def _explained(
    source: Source,
    step: Step | None,
    resolution: Resolution,
    facts: Facts,
    directory: Directory,
) -> ExplainedStep:
    """The result of a step that was reached; `step` is None for a step that `resolve` does not
    have.
    """
    if source is Source.ENVIRONMENT:
        if resolution.source is source:
            return ExplainedStep(
                source, Reason.DECIDED, "no broker that can serve is configured for the device"
            )
        return ExplainedStep(
            source,
            Reason.FLEET_IS_RESTRICTED,
            f"the fleet {facts.placement.fleet_id} is restricted to brokers of which none can"
            " serve, and never goes elsewhere",
        )
    if step is None or step.broker_id is None:
        reason, explanation = _not_set(source, facts, directory)
        return ExplainedStep(source, reason, explanation)
    named = f"broker {step.broker_id} is {_NAMES[source]}"
    reason, rest = _WHY[step.finding]
    if step.finding is Finding.NOT_ALLOWED:
        rest = f"{rest} {_listed(directory.fleets.get(facts.placement.fleet_id or ''))}"
    return ExplainedStep(source, reason, f"{named}{rest}", step.broker_id)


# The reasons and texts for findings. `_not_set` explains a step that names no broker.
_WHY = {
    Finding.CHOSEN: (Reason.DECIDED, ""),
    Finding.INACTIVE: (Reason.BROKER_INACTIVE, ", and is inactive"),
    Finding.UNKNOWN: (Reason.BROKER_UNKNOWN, ", and is not known"),
    Finding.NOT_ALLOWED: (
        Reason.BROKER_NOT_ALLOWED,
        ", and is not among the brokers that the fleet is restricted to:",
    ),
}
MAX_LISTED = 10


def _listed(rule: FleetRule | None) -> str:
    """The brokers of a restriction, or the first of them if there are many."""
    allowed_ids = sorted(rule.allowed_ids or ()) if rule else []
    listed = ", ".join(map(str, allowed_ids[:MAX_LISTED])) or "none at all"
    return listed if len(allowed_ids) <= MAX_LISTED else f"{listed} and others"


def _not_set(source: Source, facts: Facts, directory: Directory) -> tuple[Reason, str]:
    fleet_id = facts.placement.fleet_id
    rollout = _rollout_of(facts, directory)
    match source:
        case Source.DEVICE:
            return Reason.NO_PIN, "the device is not pinned to a broker"
        case Source.ROLLOUT | Source.FLEET if fleet_id is None:
            return Reason.NO_FLEET, "the device is in no fleet"
        case Source.ROLLOUT if rollout is not None:
            return Reason.NOT_REACHED, _not_reached(facts, rollout)
        case Source.ROLLOUT:
            return Reason.NO_ROLLOUT, f"the fleet {fleet_id} has no rollout under way"
        case Source.FLEET:
            return Reason.FLEET_HAS_NO_BROKER, f"the fleet {fleet_id} has no broker of its own"
        case Source.REGION if not facts.region:
            return Reason.NO_REGION, "the device has no region"
        case Source.REGION:
            return (
                Reason.REGION_HAS_NO_BROKER,
                f"the region {facts.region} has no broker: regions do not decide yet",
            )
        case _:
            return Reason.NO_DEFAULT, "no broker is the default"


def _not_reached(facts: Facts, rollout: FleetRollout) -> str:
    at_percent = (_place(facts, rollout) + 1) * 100 / POSITIONS
    return (
        f"the rollout of the fleet {facts.placement.fleet_id} to broker {rollout.broker_id} is at"
        f" {rollout.percent:g} %, and reaches this device at {at_percent:g} %"
    )
