"""Decides which broker serves a device, over plain values.

The input is the placement of a device and a directory of brokers, pools, fleets and regions. The
result is a broker or a pool, with the finding of each step. The first step that names one which may
serve decides. The steps are: the device's pin or pool, the broker of the fleet's rollout, the
fleet's own broker or pool, that of the region, the default pool, the default broker, and
MQTT_BROKER_URL. docs/note.md requires the pin, the default and MQTT_BROKER_URL. Which member of a
pool serves a device is decided in domain/pools.py.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from domain.choices import Choice, limited
from domain.pools import Health, Location, Pool, State, distance_km, has_room


class Source(StrEnum):
    """The step that decided, in the order of the steps."""

    DEVICE = "device"
    ROLLOUT = "rollout"
    FLEET = "fleet"
    REGION = "region"
    DEFAULT_POOL = "default_pool"
    DEFAULT = "default"
    ENVIRONMENT = "environment"


class Finding(StrEnum):
    """The finding of a step."""

    CHOSEN = "chosen"
    NOT_SET = "not_set"  # it names no broker and no pool
    UNKNOWN = "unknown"  # what it names is not in the directory
    INACTIVE = "inactive"
    NOT_ALLOWED = "not_allowed"  # the device's fleet is restricted to other brokers
    EMPTY = "empty"  # the pool has no member that may serve the device
    FULL = "full"  # the pool serves only devices that are at home in it


@dataclass(frozen=True, slots=True)
class Broker:
    """What the decision needs to know about a broker."""

    id: int
    is_active: bool = True
    # The broker that serves while this one is down.
    backup_id: int | None = None


class Target(NamedTuple):
    """What a step names: a broker, a pool, or neither."""

    broker_id: int | None = None
    pool_id: int | None = None


NOTHING = Target()


@dataclass(frozen=True, slots=True)
class RegionRule:
    """What serves the devices of a region."""

    target: Target = NOTHING
    location: Location | None = None


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
    pool_id: int | None = None


class Placement(Struct, frozen=True):
    """The facts of a device that decide its broker."""

    broker_id: int | None = None
    fleet_id: str | None = None
    # The fleet's revision when the facts were read. An older rule may lack a restriction.
    fleet_revision: int = 0
    # The salt of the fleet's rollout as of that revision, if the rollout has reached the device. So
    # a few placements serve all devices, though each device has its own position in the rollout.
    wave: str = ""
    pool_id: int | None = None
    # Empty if the device has no region that is known.
    region: str = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """All brokers, pools, fleets and regions as of one moment."""

    brokers: Mapping[int, Broker]
    fleets: Mapping[str, FleetRule]
    default_id: int | None = None
    pools: Mapping[int, Pool] = field(default_factory=dict)
    regions: Mapping[str, RegionRule] = field(default_factory=dict)
    healths: Mapping[int, Health] = field(default_factory=dict)
    default_pool_id: int | None = None

    def knows(self, placement: Placement) -> bool:
        """Whether the directory holds the broker, the pool and the fleet of the placement. If not,
        it is older than the placement.
        """
        if placement.broker_id is not None and placement.broker_id not in self.brokers:
            return False
        if placement.pool_id is not None and placement.pool_id not in self.pools:
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
        default_id = self.default_id if self.default_id in brokers else None
        return replace(self, brokers=brokers, fleets=fleets, default_id=default_id)


@dataclass(frozen=True, slots=True)
class Step:
    """The broker or pool that one step named, and the step's finding."""

    source: Source
    broker_id: int | None
    finding: Finding
    pool_id: int | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """The decision. `choice` is None if no broker may serve the device: a restricted fleet gets no
    other broker. `steps` ends with the step that decided; a pool that is full comes before it.
    """

    choice: Choice | None
    steps: tuple[Step, ...]

    @property
    def broker_id(self) -> int | None:
        """The broker that is named; None if a pool or MQTT_BROKER_URL serves."""
        return self.choice.broker_id if self.choice else None

    @property
    def source(self) -> Source | None:
        """The first step that decided; ENVIRONMENT if none did; None if no broker may serve."""
        return Source(self.choice.source) if self.choice else None


def _pin(placement: Placement, _: Directory) -> Target:
    # The pin comes before the pool.
    if placement.broker_id is not None:
        return Target(placement.broker_id)
    return Target(None, placement.pool_id)


def _rollout(placement: Placement, directory: Directory) -> Target:
    rule = directory.fleets.get(placement.fleet_id) if placement.fleet_id else None
    rollout = rule.rollout if rule else None
    is_reached = rollout is not None and rollout.salt == placement.wave
    return Target(rollout.broker_id) if rollout and is_reached else NOTHING


def _fleet_rule(placement: Placement, directory: Directory) -> Target:
    rule = directory.fleets.get(placement.fleet_id) if placement.fleet_id else None
    return Target(rule.broker_id, rule.pool_id) if rule else NOTHING


def _region(placement: Placement, directory: Directory) -> Target:
    own = directory.regions.get(placement.region)
    if own is None:
        return NOTHING
    if own.target != NOTHING or own.location is None:
        return own.target
    # A region that names nothing takes the nearest one whose broker or pool is not down.
    near = (
        (distance_km(own.location, rule.location), region)
        for region, rule in directory.regions.items()
        if rule.location is not None and _serves(rule.target, directory)
    )
    _, nearest = min(near, default=(0.0, ""))
    return directory.regions[nearest].target if nearest else NOTHING


def _default_pool(_: Placement, directory: Directory) -> Target:
    return Target(None, directory.default_pool_id)


def _default(_: Placement, directory: Directory) -> Target:
    return Target(directory.default_id)


CHAIN: tuple[tuple[Source, Callable[[Placement, Directory], Target]], ...] = (
    (Source.DEVICE, _pin),
    (Source.ROLLOUT, _rollout),
    (Source.FLEET, _fleet_rule),
    (Source.REGION, _region),
    (Source.DEFAULT_POOL, _default_pool),
    (Source.DEFAULT, _default),
)


def resolve(placement: Placement, directory: Directory) -> Resolution:
    """Resolves a placement. The caller must refuse a placement that the directory does not know."""
    rule = directory.fleets.get(placement.fleet_id) if placement.fleet_id else None
    allowed_ids = rule.allowed_ids if rule else None
    region = directory.regions.get(placement.region)
    location = region.location if region else None
    steps: list[Step] = []
    # The full pools before the step that decides.
    full: list[Choice] = []
    chosen: Choice | None = None
    for source, names in CHAIN:
        target = names(placement, directory)
        finding, choice = _found(source, target, directory, allowed_ids)
        if choice is not None and (pool := choice.pool) is not None:
            choice = replace(choice, location=location)
            # A restricted fleet has no other brokers, so its pool is overfilled instead.
            if allowed_ids is None and not has_room(pool, directory.healths):
                full.append(choice)
                finding, choice = Finding.FULL, None
        steps.append(Step(source, target.broker_id, finding, target.pool_id))
        if choice is not None:
            chosen = choice
            break
    if chosen is None and full:
        # No later step decided: the last full pool is overfilled.
        chosen = full.pop()
        steps = [
            replace(step, finding=Finding.CHOSEN) if step.source == chosen.source else step
            for step in steps
        ]
    if chosen is None and allowed_ids is None:
        chosen = Choice(Source.ENVIRONMENT)
    for earlier in reversed(full):
        chosen = replace(earlier, next=chosen)
    return Resolution(chosen, tuple(steps))


def _found(
    source: Source, target: Target, directory: Directory, allowed_ids: frozenset[int] | None
) -> tuple[Finding, Choice | None]:
    if target.broker_id is not None:
        finding = _finding(target.broker_id, directory, allowed_ids)
        if finding is not Finding.CHOSEN:
            return finding, None
        backup_id = directory.brokers[target.broker_id].backup_id
        if backup_id and _finding(backup_id, directory, allowed_ids) is not Finding.CHOSEN:
            backup_id = None
        return finding, Choice(source, target.broker_id, backup_id)
    if target.pool_id is None:
        return Finding.NOT_SET, None
    pool = directory.pools.get(target.pool_id)
    if pool is None:
        return Finding.UNKNOWN, None
    may_serve = frozenset(
        member.broker_id
        for member in pool.members
        if _finding(member.broker_id, directory, allowed_ids) is Finding.CHOSEN
    )
    pool = limited(pool, may_serve)
    if not any(member.weight for member in pool.members):
        return Finding.EMPTY, None
    return Finding.CHOSEN, Choice(source, pool=pool)


def _finding(broker_id: int, directory: Directory, allowed_ids: frozenset[int] | None) -> Finding:
    broker = directory.brokers.get(broker_id)
    if broker is None:
        return Finding.UNKNOWN
    if allowed_ids is not None and broker_id not in allowed_ids:
        return Finding.NOT_ALLOWED
    return Finding.CHOSEN if broker.is_active else Finding.INACTIVE


def _serves(target: Target, directory: Directory) -> bool:
    """Whether the broker, or a member of the pool, is active and not down."""
    pool = directory.pools.get(target.pool_id or 0)
    ids = [member.broker_id for member in pool.members] if pool else [target.broker_id or 0]
    return any(
        (broker := directory.brokers.get(broker_id)) is not None
        and broker.is_active
        and directory.healths.get(broker_id, Health()).state is not State.DOWN
        for broker_id in ids
    )
