"""Decides which broker serves a device, over plain values.

The input is the placement of a device and a directory of the brokers and fleets. The result is the
broker, with the finding of each step. The first step that names a broker which may serve decides.
The steps are: the device's pin, the broker of the fleet's rollout, the fleet's own broker, the
default, and MQTT_BROKER_URL. docs/note.md requires the pin, the default and MQTT_BROKER_URL.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct


class Source(StrEnum):
    """The step that decided, in the order of the steps."""

    DEVICE = "device"
    ROLLOUT = "rollout"
    FLEET = "fleet"
    REGION = "region"
    DEFAULT = "default"
    ENVIRONMENT = "environment"


class Finding(StrEnum):
    """The finding of a step."""

    CHOSEN = "chosen"
    NOT_SET = "not_set"  # it names no broker
    UNKNOWN = "unknown"  # the broker it names is not in the directory
    INACTIVE = "inactive"
    NOT_ALLOWED = "not_allowed"  # the device's fleet is restricted to other brokers


@dataclass(frozen=True, slots=True)
class Broker:
    """What the decision needs to know about a broker."""

    id: int
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class FleetRollout:
    """A rollout takes a fleet to another broker in waves (domain/waves.py)."""

    broker_id: int
    # 0 to 100, with two decimals.
    percent: float
    salt: str


@dataclass(frozen=True, slots=True)
class FleetRule:
    """The rule for the brokers of a fleet's devices."""

    broker_id: int | None = None
    # The only brokers that may serve its devices; None if any may.
    allowed_ids: frozenset[int] | None = None
    # Goes up with every change of the fleet.
    revision: int = 0
    rollout: FleetRollout | None = None


class Placement(Struct, frozen=True):
    """The facts of a device that decide its broker."""

    broker_id: int | None = None
    fleet_id: str | None = None
    # The fleet's revision when the facts were read. An older rule may lack a restriction.
    fleet_revision: int = 0
    # The salt of the fleet's rollout as of that revision, if the rollout has reached the device. So
    # a few placements serve all devices, though each device has its own position in the rollout.
    wave: str = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """All brokers and fleets as of one moment."""

    brokers: Mapping[int, Broker]
    fleets: Mapping[str, FleetRule]
    default_id: int | None = None

    def knows(self, placement: Placement) -> bool:
        """Whether the directory holds the broker and the fleet of the placement. If not, it is
        older than the placement.
        """
        if placement.broker_id is not None and placement.broker_id not in self.brokers:
            return False
        if placement.fleet_id is None:
            return True
        rule = self.fleets.get(placement.fleet_id)
        return rule is not None and rule.revision >= placement.fleet_revision

    def within(self, fleet_ids: Collection[str]) -> "Directory":
        """A directory of these fleets, and of the brokers that one of them may use. Their devices
        resolve as before, because no other broker could serve them.
        """
        fleets = {key: rule for key, rule in self.fleets.items() if key in fleet_ids}
        brokers = self.brokers
        allowances = [rule.allowed_ids for rule in fleets.values()]
        if None not in allowances:
            usable = frozenset[int]().union(*filter(None, allowances))
            brokers = {key: broker for key, broker in brokers.items() if key in usable}
        return Directory(brokers, fleets, self.default_id if self.default_id in brokers else None)


@dataclass(frozen=True, slots=True)
class Step:
    """The broker that one step named, and the step's finding."""

    source: Source
    broker_id: int | None
    finding: Finding


@dataclass(frozen=True, slots=True)
class Resolution:
    """The decision. If no step decided, `source` is ENVIRONMENT, without a broker. If no broker may
    serve the device, `source` is None: a restricted fleet gets no other broker.
    """

    source: Source | None
    broker_id: int | None
    steps: tuple[Step, ...]


def _pin(placement: Placement, _: Directory) -> int | None:
    return placement.broker_id


def _rollout(placement: Placement, directory: Directory) -> int | None:
    rule = directory.fleets.get(placement.fleet_id) if placement.fleet_id else None
    rollout = rule.rollout if rule else None
    return rollout.broker_id if rollout and rollout.salt == placement.wave else None


def _fleet_rule(placement: Placement, directory: Directory) -> int | None:
    rule = directory.fleets.get(placement.fleet_id) if placement.fleet_id else None
    return rule.broker_id if rule else None


def _default(_: Placement, directory: Directory) -> int | None:
    return directory.default_id


CHAIN: tuple[tuple[Source, Callable[[Placement, Directory], int | None]], ...] = (
    (Source.DEVICE, _pin),
    (Source.ROLLOUT, _rollout),
    (Source.FLEET, _fleet_rule),
    (Source.DEFAULT, _default),
)


def resolve(placement: Placement, directory: Directory) -> Resolution:
    """Resolves a placement. The caller must refuse a placement that the directory does not know."""
    rule = directory.fleets.get(placement.fleet_id) if placement.fleet_id else None
    allowed_ids = rule.allowed_ids if rule else None
    steps = []
    for source, names in CHAIN:
        broker_id = names(placement, directory)
        finding = _finding(broker_id, directory, allowed_ids)
        steps.append(Step(source, broker_id, finding))
        if finding is Finding.CHOSEN:
            return Resolution(source, broker_id, tuple(steps))
    source_of_last_resort = Source.ENVIRONMENT if allowed_ids is None else None
    return Resolution(source_of_last_resort, None, tuple(steps))


def _finding(
    broker_id: int | None, directory: Directory, allowed_ids: frozenset[int] | None
) -> Finding:
    if broker_id is None:
        return Finding.NOT_SET
    broker = directory.brokers.get(broker_id)
    if broker is None:
        return Finding.UNKNOWN
    if allowed_ids is not None and broker_id not in allowed_ids:
        return Finding.NOT_ALLOWED
    return Finding.CHOSEN if broker.is_active else Finding.INACTIVE
