"""Finishes the choice of a broker for one device: its home, the broker that serves it now, and its
fallbacks.

A step of the resolution names a broker or a pool (broker_service/resolution.py). That is the same
for all devices with the same placement. What differs from device to device is decided here, from
the uuid, the home and the location of the device, in the same way by both services.

The brokers of which a device is told are its home and its fallbacks. They do not depend on the
health of brokers: health only decides their order. So a broker that fails and recovers changes no
device's row.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from domain.slots import Orders, slot_of
from domain.waves import is_reached, position

# How many fallbacks a device gets, unless it is configured otherwise.
FALLBACKS = 2
EARTH_KM = 6_371.0

# Latitude and longitude in degrees.
Location = tuple[float, float]


class Policy(StrEnum):
    """How a pool orders its members."""

    WEIGHTED = "weighted"
    PRIORITY = "priority"
    NEAREST = "nearest"


class State(StrEnum):
    """What the probes found about a broker."""

    UNKNOWN = "unknown"  # it is not probed; counts as up
    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"


class Situation(StrEnum):
    """What is unusual about a decision."""

    USUAL = "usual"
    FAILOVER = "failover"  # another broker than the home serves, because the home is down
    DOWN = "down"  # the broker is down, and no other one may serve
    DOUBTED = "doubted"  # so many members look down that the probes are not believed
    OVERFILLED = "overfilled"  # all members are full


class Health(NamedTuple):
    """The state of a broker. The share of devices that may use it again after it was down is
    `returning_percent`, in the order of the salt (domain/waves.py).
    """

    state: State = State.UNKNOWN
    is_full: bool = False
    returning_percent: float = 100.0
    salt: str = ""


HEALTHY = Health()


class Member(NamedTuple):
    """A broker in a pool. The lowest priority comes first; a member of weight 0 gets no device."""

    broker_id: int
    weight: int = 100
    priority: int = 1
    region: str = ""
    location: Location | None = None


@dataclass(frozen=True)
class Pool:
    """A pool of brokers. What is derived from it is kept, so that a decision is cheap."""

    id: int
    members: tuple[Member, ...]
    policy: Policy = Policy.WEIGHTED
    # Whether devices keep their homes until a rebalancing reaches them.
    is_sticky: bool = True
    # The member that each slot begins with (domain/slots.py).
    slots: Sequence[int] = field(default=(), repr=False)
    rebalance_percent: float = 0.0
    rebalance_salt: str = ""
    # Goes up with every change of the pool, its members and slots.
    revision: int = 0

    @cached_property
    def weights(self) -> Mapping[int, int]:
        """The weights of the members."""
        return {member.broker_id: member.weight for member in self.members}

    @cached_property
    def nearest(self) -> Mapping[int, Member]:
        """The members by their broker, if distances matter; else empty."""
        members = self.members if self.policy is Policy.NEAREST else ()
        return {member.broker_id: member for member in members}

    @cached_property
    def orders(self) -> Orders:
        """The orders of the slots, which are the same for all devices, except for distances."""
        priorities = {member.broker_id: member.priority for member in self.members}
        is_by_priority = self.policy is Policy.PRIORITY
        return Orders(self.slots, self.weights, priorities if is_by_priority else None)


class Subject(NamedTuple):
    """The facts of a device that can decide between brokers. A `nearest` pool needs the last two;
    the location is that of the device, or else of its region.
    """

    uuid: str
    home_id: int | None = None
    region: str = ""
    location: Location | None = None


class Decision(NamedTuple):
    """The brokers of a device. `broker_ids` begins with the one that serves now; `told_ids` are the
    same brokers with the home first. Without fallbacks, they are only the one that serves now.
    `home_id` is None if no pool is in charge.
    """

    broker_ids: tuple[int, ...]
    told_ids: tuple[int, ...]
    home_id: int | None = None
    situation: Situation = Situation.USUAL


Healths = Mapping[int, Health]


def decide_named(
    broker_id: int, backup_id: int | None, healths: Healths, subject: Subject
) -> Decision:
    """The decision for a broker that is named, with its backup if that one may serve the device."""
    told_ids = (broker_id,) if backup_id is None else (broker_id, backup_id)
    if is_usable(healths.get(broker_id, HEALTHY), subject.uuid):
        return Decision(told_ids, told_ids)
    if backup_id is None or not is_usable(healths.get(backup_id, HEALTHY), subject.uuid):
        situation = Situation.DOWN if _is_down(healths, broker_id) else Situation.USUAL
        return Decision(told_ids, told_ids, None, situation)
    return Decision((backup_id, broker_id), told_ids, None, Situation.FAILOVER)


def decide(
    pool: Pool, healths: Healths, subject: Subject, fallbacks: int = FALLBACKS
) -> Decision | None:
    """The decision for a pool; None if it has no member that could serve."""
    order = order_for(pool, subject)
    is_member = subject.home_id in pool.weights
    if not order and not is_member:
        return None
    if pool.weights.keys().isdisjoint(healths.keys()):
        healths = {}
    is_doubted = bool(healths) and looks_wrong(pool, healths)
    believed = _all_up(pool, healths) if is_doubted else healths
    home_id, is_overfilled = _home(pool, order, believed, subject, is_member=is_member)
    others = [broker_id for broker_id in order if broker_id != home_id]
    told_ids = (home_id, *others[:fallbacks])
    if not believed:
        return Decision(told_ids, told_ids, home_id)
    usable = (
        broker_id
        for broker_id in (home_id, *others)
        if is_usable(believed.get(broker_id, HEALTHY), subject.uuid)
    )
    serving_id = next(usable, home_id)
    if serving_id not in told_ids:
        told_ids = (*told_ids[:fallbacks], serving_id)
    broker_ids = (serving_id, *(one for one in told_ids if one != serving_id))
    situation = Situation.USUAL
    if serving_id != home_id:
        situation = Situation.FAILOVER
    elif _is_down(believed, home_id):
        situation = Situation.DOWN
    elif is_doubted:
        situation = Situation.DOUBTED
    elif is_overfilled:
        situation = Situation.OVERFILLED
    return Decision(broker_ids, told_ids, home_id, situation)


def has_room(pool: Pool, healths: Healths) -> bool:
    """Whether the pool takes devices that have no home in it yet: whether a member that is not down
    is not full. If all members are down, those that are full do not count.
    """
    known = [healths.get(one.broker_id, HEALTHY) for one in pool.members if one.weight > 0]
    running = [health for health in known if health.state is not State.DOWN]
    return any(not health.is_full for health in running or known)


def looks_wrong(pool: Pool, healths: Healths) -> bool:
    """Whether more than half of the members, and at least two, look down. It is likelier then that
    the probes are wrong, and sending all devices to the rest would bring that down too.
    """
    unusual = pool.weights.keys() & healths.keys()
    down = [broker_id for broker_id in unusual if _is_down(healths, broker_id)]
    return len(down) >= 2 and len(down) * 2 > len(pool.members)


def is_usable(health: Health, uuid: str) -> bool:
    """Whether a broker serves this device now."""
    if health.state is State.DOWN:
        return False
    percent = health.returning_percent
    return percent >= 100 or is_reached(percent, position(health.salt, uuid))


def order_for(pool: Pool, subject: Subject) -> tuple[int, ...]:
    """All members that may get devices, in the order for this device."""
    order = pool.orders.of(slot_of(subject.uuid))
    if not (members := pool.nearest):
        return order
    return tuple(sorted(order, key=lambda one: _far(members[one], subject)))


def distance_km(one: Location, other: Location) -> float:
    """The great-circle distance, by the haversine formula."""
    (lat, long), (other_lat, other_long) = one, other
    up, across = math.radians(other_lat - lat), math.radians(other_long - long)
    chord = (
        math.sin(up / 2) ** 2
        + math.cos(math.radians(lat))
        * math.cos(math.radians(other_lat))
        * math.sin(across / 2) ** 2
    )
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(chord)))


def _far(member: Member, subject: Subject) -> tuple[bool, float]:
    """The key of the order by distance: the same region first, an unknown distance last."""
    is_elsewhere = not (subject.region and member.region == subject.region)
    if subject.location is None or member.location is None:
        return is_elsewhere, math.inf
    return is_elsewhere, distance_km(subject.location, member.location)


def _home(
    pool: Pool, order: Sequence[int], healths: Healths, subject: Subject, *, is_member: bool
) -> tuple[int, bool]:
    """The home, and whether it gets the device though it is full."""
    kept = subject.home_id if is_member else None
    if kept is not None:
        stays = pool.is_sticky and not _is_rebalanced(pool, subject.uuid)
        if stays or not order or kept == order[0]:
            return kept, False
        return (order[0] if _is_open(healths, order[0], subject.uuid) else kept), False
    if not healths:
        return order[0], False
    usable = [one for one in order if is_usable(healths.get(one, HEALTHY), subject.uuid)]
    if not usable:
        return order[0], False
    home_id = min(usable, key=lambda one: _reluctance(healths.get(one, HEALTHY)))
    return home_id, healths.get(home_id, HEALTHY).is_full


def _reluctance(health: Health) -> tuple[bool, bool]:
    """The key of the order in which usable brokers get new devices."""
    return health.is_full, health.state is State.DEGRADED


def _is_open(healths: Healths, broker_id: int, uuid: str) -> bool:
    """Whether a broker takes a device from another home."""
    health = healths.get(broker_id, HEALTHY)
    return not any(_reluctance(health)) and is_usable(health, uuid)


def _is_rebalanced(pool: Pool, uuid: str) -> bool:
    return bool(pool.rebalance_salt) and is_reached(
        pool.rebalance_percent, position(pool.rebalance_salt, uuid)
    )


def _is_down(healths: Healths, broker_id: int) -> bool:
    return healths.get(broker_id, HEALTHY).state is State.DOWN


def _all_up(pool: Pool, healths: Healths) -> dict[int, Health]:
    """The members' states, as if those that look down were up."""
    known = {one.broker_id: healths.get(one.broker_id, HEALTHY) for one in pool.members}
    return {
        broker_id: Health(State.UP, health.is_full) if health.state is State.DOWN else health
        for broker_id, health in known.items()
    }
