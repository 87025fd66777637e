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
    Source,
    Step,
    resolve,
)
from domain.choices import Choice, finished
from domain.pools import HEALTHY, Decision, Health, Situation, State, Subject
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
    NO_DEFAULT_POOL = "NO_DEFAULT_POOL"
    POOL_UNKNOWN = "POOL_UNKNOWN"
    POOL_IS_EMPTY = "POOL_IS_EMPTY"  # no member is active, allowed and has a weight
    POOL_IS_FULL = "POOL_IS_FULL"  # it serves only devices that are at home in it


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a device that can decide its broker."""

    placement: Placement = field(default_factory=Placement)
    region: str = ""
    # Latitude and longitude in degrees.
    location: tuple[float, float] | None = None
    # Empty if the uuid is not known. Then only a rollout at 100 % reaches the device.
    uuid: str = ""
    # The member of a pool to which the device belongs.
    home_id: int | None = None


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """The result of one step, and its reason."""

    source: Source
    reason: Reason
    # A sentence for people.
    explanation: str
    # The broker or the pool that the step names, even if it is not chosen.
    broker_id: int | None = None
    pool_id: int | None = None


@dataclass(frozen=True, slots=True)
class ExplainedBroker:
    """A broker that may serve the device."""

    broker_id: int
    health: Health
    is_home: bool
    is_chosen: bool
    # A sentence for people.
    explanation: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision. `source` is None if no broker may serve the device. `brokers` are the one that
    serves and its fallbacks, in order. Of all `steps`, in order, at most one decides.
    """

    source: Source | None
    steps: tuple[ExplainedStep, ...]
    pool_id: int | None = None
    situation: Situation = Situation.USUAL
    brokers: tuple[ExplainedBroker, ...] = ()

    @property
    def broker_id(self) -> int | None:
        """The broker that serves the device."""
        return self.brokers[0].broker_id if self.brokers else None


def explain(facts: Facts, directory: Directory) -> Explanation:
    """The decision for a device, and its reasons."""
    resolution = resolve(facts.placement, directory)
    choice, decision = resolution.choice, None
    if choice is not None:
        subject = Subject(facts.uuid, facts.home_id, facts.placement.region, facts.location)
        choice, decision = finished(choice, directory.healths, subject)
    found = {step.source: step for step in resolution.steps}
    steps: list[ExplainedStep] = []
    decided_by: Source | None = None
    for source in Source:
        if decided_by is None:
            step = _explained(source, found.get(source), choice, facts, directory)
        else:
            step = ExplainedStep(
                source, Reason.DECIDED_EARLIER, f"not asked: {_NAMES[decided_by]} has decided"
            )
        if step.reason is Reason.DECIDED:
            decided_by = source
        steps.append(step)
    return Explanation(
        Source(choice.source) if choice else None,
        tuple(steps),
        choice.pool.id if choice and choice.pool else None,
        decision.situation if decision else Situation.USUAL,
        tuple(_broker(one, decision, directory) for one in decision.broker_ids) if decision else (),
    )


def _broker(broker_id: int, decision: Decision, directory: Directory) -> ExplainedBroker:
    health = directory.healths.get(broker_id, HEALTHY)
    is_home, is_chosen = broker_id == decision.told_ids[0], broker_id == decision.broker_ids[0]
    if is_chosen:
        why = _WHY_CHOSEN[decision.situation]
    elif is_home:
        why = f"the device's own broker, which is {health.state}"
        if health.state is not State.DOWN:
            why += f" and takes back {health.returning_percent:g} % of its devices"
    else:
        why = "a fallback"
    return ExplainedBroker(broker_id, health, is_home, is_chosen, why)


_WHY_CHOSEN = {
    Situation.USUAL: "the device's own broker",
    Situation.FAILOVER: "serves while the device's own broker does not",
    Situation.DOWN: "is down, and no other broker may serve the device",
    Situation.DOUBTED: "so many members of the pool look down that the probes are not believed",
    Situation.OVERFILLED: "is full, like all members of the pool, and takes the device anyway",
}


def reached(facts: Facts, directory: Directory) -> Facts:
    """The facts, with the device's wave and region according to `directory`, also for a
    hypothetical fleet and region. So both agree with the explanation.
    """
    rollout = _rollout_of(facts, directory)
    is_in = rollout is not None and is_reached(rollout.percent, _place(facts, rollout))
    wave = rollout.salt if rollout and is_in else ""
    region = facts.region if facts.region in directory.regions else ""
    return replace(facts, placement=structs.replace(facts.placement, wave=wave, region=region))


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
    known = directory.brokers
    changed = {one: replace(known.get(one, Broker(one)), is_active=True) for one in active_ids}
    changed |= {one: replace(known.get(one, Broker(one)), is_active=False) for one in inactive_ids}
    return replace(directory, brokers={**directory.brokers, **changed}, default_id=default_id)


_NAMES = {
    Source.DEVICE: "the device's pin",
    Source.ROLLOUT: "the broker of the fleet's rollout",
    Source.FLEET: "the fleet's broker",
    Source.REGION: "the region's broker",
    Source.DEFAULT_POOL: "the default pool",
    Source.DEFAULT: "the default",
    Source.ENVIRONMENT: "MQTT_BROKER_URL",
}


# The steps that can name a pool.
_POOLS = {
    Source.DEVICE: "the device's pool",
    Source.FLEET: "the fleet's pool",
    Source.REGION: "the region's pool",
    Source.DEFAULT_POOL: "the default",
}


def _explained(
    source: Source,
    step: Step | None,
    choice: Choice | None,
    facts: Facts,
    directory: Directory,
) -> ExplainedStep:
    """The result of a step; `step` is None for the last one, and for one after a decision."""
    if source is Source.ENVIRONMENT:
        if choice is not None:
            return ExplainedStep(
                source, Reason.DECIDED, "no broker that can serve is configured for the device"
            )
        return ExplainedStep(
            source,
            Reason.FLEET_IS_RESTRICTED,
            f"the fleet {facts.placement.fleet_id} is restricted to brokers of which none can"
            " serve, and never goes elsewhere",
        )
    if step is None or step.finding is Finding.NOT_SET:
        reason, explanation = _not_set(source, facts, directory)
        return ExplainedStep(source, reason, explanation)
    is_pool = step.broker_id is None
    named = (
        f"pool {step.pool_id} is {_POOLS[source]}"
        if is_pool
        else f"broker {step.broker_id} is {_NAMES[source]}"
    )
    reason, rest = _WHY[step.finding]
    if step.finding is Finding.UNKNOWN and is_pool:
        reason = Reason.POOL_UNKNOWN
    if step.finding is Finding.FULL and choice is not None and choice.source == source:
        reason, rest = Reason.DECIDED, ", which is full, and the device is at home in it"
    if step.finding is Finding.NOT_ALLOWED:
        rest = f"{rest} {_listed(directory.fleets.get(facts.placement.fleet_id or ''))}"
    return ExplainedStep(source, reason, f"{named}{rest}", step.broker_id, step.pool_id)


# The reasons and texts for findings. `_not_set` explains a step that names no broker.
_WHY = {
    Finding.CHOSEN: (Reason.DECIDED, ""),
    Finding.INACTIVE: (Reason.BROKER_INACTIVE, ", and is inactive"),
    Finding.UNKNOWN: (Reason.BROKER_UNKNOWN, ", and is not known"),
    Finding.EMPTY: (Reason.POOL_IS_EMPTY, ", and has no member that may serve the device"),
    Finding.FULL: (Reason.POOL_IS_FULL, ", and all its members are full"),
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
            return Reason.NO_PIN, "the device is not pinned to a broker or a pool"
        case Source.ROLLOUT | Source.FLEET if fleet_id is None:
            return Reason.NO_FLEET, "the device is in no fleet"
        case Source.ROLLOUT if rollout is not None:
            return Reason.NOT_REACHED, _not_reached(facts, rollout)
        case Source.ROLLOUT:
            return Reason.NO_ROLLOUT, f"the fleet {fleet_id} has no rollout under way"
        case Source.FLEET:
            return (
                Reason.FLEET_HAS_NO_BROKER,
                f"the fleet {fleet_id} has no broker or pool of its own",
            )
        case Source.REGION if not facts.region:
            return Reason.NO_REGION, "the device has no region"
        case Source.REGION:
            is_known = facts.placement.region == facts.region
            return (
                Reason.REGION_HAS_NO_BROKER,
                f"the region {facts.region} has no broker and no pool, nor has another one nearby"
                if is_known
                else f"the region {facts.region} is not known",
            )
        case Source.DEFAULT_POOL:
            return Reason.NO_DEFAULT_POOL, "no pool is the default"
        case _:
            return Reason.NO_DEFAULT, "no broker is the default"


def _not_reached(facts: Facts, rollout: FleetRollout) -> str:
    at_percent = (_place(facts, rollout) + 1) * 100 / POSITIONS
    return (
        f"the rollout of the fleet {facts.placement.fleet_id} to broker {rollout.broker_id} is at"
        f" {rollout.percent:g} %, and reaches this device at {at_percent:g} %"
    )
