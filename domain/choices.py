"""The choice that all devices with one placement share, and how it is finished for one device.

The broker service makes a choice from the steps of the resolution. The registry gets it once, and
finishes it for each device without asking again, as long as nothing changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from domain.pools import (
    FALLBACKS,
    HEALTHY,
    Decision,
    Health,
    Location,
    Member,
    Policy,
    Pool,
    Subject,
    decide,
    decide_named,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A broker or a pool, or neither: then MQTT_BROKER_URL serves. `source` is the step that
    decided, in the words of the caller.
    """

    source: Any
    broker_id: int | None = None
    # The backup of the broker, if it may serve these devices.
    backup_id: int | None = None
    pool: Pool | None = None
    # What serves devices that are not at home in the pool, if the pool is full.
    next: "Choice | None" = None
    # The location of the devices' region, for devices that say none.
    location: Location | None = None

    def needs_devices(self, healths: Mapping[int, Health]) -> bool:
        """Whether the choice depends on the device."""
        if self.pool is not None:
            return True
        if self.broker_id is None or self.backup_id is None:
            return False
        both = (healths.get(one, HEALTHY) for one in (self.broker_id, self.backup_id))
        return any(0 < health.returning_percent < 100 for health in both)

    @property
    def needs_locations(self) -> bool:
        """Whether it depends on the locations of devices."""
        if self.pool is None:
            return False
        is_near = self.pool.policy is Policy.NEAREST
        return is_near or (self.next is not None and self.next.needs_locations)

    @property
    def broker_ids(self) -> set[int]:
        """All brokers that it may lead to."""
        ids = {member.broker_id for member in self.pool.members} if self.pool else set[int]()
        ids |= {one for one in (self.broker_id, self.backup_id) if one is not None}
        return ids | (self.next.broker_ids if self.next else set())


def finished(
    choice: Choice, healths: Mapping[int, Health], subject: Subject, fallbacks: int = FALLBACKS
) -> tuple[Choice, Decision | None]:
    """The choice that serves the device, and the decision; None if MQTT_BROKER_URL serves."""
    if choice.pool is not None:
        if choice.next is not None and not is_at_home(choice.pool, subject):
            return finished(choice.next, healths, subject, fallbacks)
        if subject.location is None and choice.location is not None:
            subject = subject._replace(location=choice.location)
        return choice, decide(choice.pool, healths, subject, fallbacks)
    if choice.broker_id is None:
        return choice, None
    return choice, decide_named(choice.broker_id, choice.backup_id, healths, subject)


def is_at_home(pool: Pool, subject: Subject) -> bool:
    """Whether the device has its home in this pool."""
    return any(member.broker_id == subject.home_id for member in pool.members)


def limited(pool: Pool, broker_ids: frozenset[int] | None) -> Pool:
    """The pool with only these members; with all of them if None."""
    if broker_ids is None or all(member.broker_id in broker_ids for member in pool.members):
        return pool
    return replace(pool, members=tuple(_of(pool.members, broker_ids)))


def _of(members: tuple[Member, ...], broker_ids: frozenset[int]) -> list[Member]:
    return [member for member in members if member.broker_id in broker_ids]
