"""The answers from one snapshot, as messages. Each is made once for all its devices: all devices
together have few different placements, and a pool has few different orders of brokers.
"""

from collections.abc import Iterable
from typing import NamedTuple

from mooring.broker.v1 import resolution_pb2 as pb

from broker_service.errors import NoBrokerAllowed, PlacementUnknown
from broker_service.placements.explanation_messages import SITUATIONS, SOURCES
from broker_service.placements.pool_messages import PoolMessages, location_message
from broker_service.placements.snapshot import Snapshot
from broker_service.placements.store import Placed
from broker_service.resolution import Placement, resolve
from chassis.errors import MooringError, to_item
from domain.choices import Choice, finished
from domain.pools import Decision, Health, Subject

# The limit of cached answers from one snapshot.
MAX_REMEMBERED = 20_000
UNPLACED = Placed(Placement())


class _Key(NamedTuple):
    """What an answer depends on. `decision` is None if it is the same for all devices of the
    placement, and for MQTT_BROKER_URL.
    """

    placement: Placement
    is_known: bool
    with_fallbacks: bool
    source: object = None
    decision: Decision | None = None


class _Made(NamedTuple):
    """A choice, and whether it depends on the device."""

    choice: Choice
    needs_devices: bool


class Answers:
    """The answers from one snapshot."""

    def __init__(
        self, snapshot: Snapshot, is_stale: bool, environment_url: str, messages: PoolMessages
    ) -> None:
        self.snapshot = snapshot
        self.is_stale = is_stale
        self._environment_url = environment_url
        self._choices: dict[Placement, _Made] = {}
        self._resolutions: dict[_Key, pb.Resolution] = {}
        self._of_one: dict[_Key, pb.ResolveBrokerResponse] = {}
        self._messages = messages

    def of_one(
        self, uuid: str, placed: Placed | None, *, with_fallbacks: bool
    ) -> pb.ResolveBrokerResponse:
        """The response for one device; None stands for a uuid that is not registered. Raises
        `PlacementUnknown`, `NoBrokerAllowed`.
        """
        key, choice = self._key(uuid, placed, with_fallbacks)
        answer = self._of_one.get(key)
        if answer is None:
            resolution = self._resolution(key, choice, uuid, placed or UNPLACED)
            settings = self.snapshot.settings
            broker = settings.get(resolution.broker_id)
            answer = pb.ResolveBrokerResponse(
                resolution=resolution,
                broker=broker,
                url=broker.url if broker else self._environment_url,
                fallbacks=[settings[one] for one in resolution.fallback_broker_ids],
            )
            if len(self._of_one) < MAX_REMEMBERED:
                self._of_one[key] = answer
        return answer

    def needs_devices(self, placed: Placed | MooringError | None) -> bool:
        """Whether the answer is not the same for all devices with this placement."""
        if isinstance(placed, MooringError):
            return False
        made = self._choices.get((placed or UNPLACED).placement)
        return made is not None and made.needs_devices

    def of_device(
        self, uuid: str, placed: Placed | MooringError | None, *, with_fallbacks: bool
    ) -> pb.ResolutionOutcome:
        """The item of a batch for a device."""
        try:
            if isinstance(placed, MooringError):
                raise placed
            key, choice = self._key(uuid, placed, with_fallbacks)
            resolution = self._resolution(key, choice, uuid, placed or UNPLACED)
        except MooringError as error:
            return pb.ResolutionOutcome(error=to_item(error))
        return pb.ResolutionOutcome(resolution=resolution)

    def of_placement(self, placement: Placement) -> tuple[pb.ResolutionOutcome, Choice | None]:
        """The item of a batch for all devices with a placement, and its choice."""
        try:
            choice = self._chosen(placement).choice
        except MooringError as error:
            return pb.ResolutionOutcome(error=to_item(error)), None
        return pb.ResolutionOutcome(resolution=self._shared(choice)), choice

    def pools(self, choices: Iterable[Choice], known_slots: Iterable[bytes]) -> list[pb.Pool]:
        """The pools of these choices, each once, and without slots that the caller has."""
        ids: set[int] = set()
        for choice in choices:
            each: Choice | None = choice
            while each is not None:
                ids |= {each.pool.id} if each.pool else set()
                each = each.next
        known = frozenset(known_slots)
        pools = self.snapshot.directory.pools
        return [self._messages.of(pools[one], known) for one in sorted(ids)]

    def healths(self, broker_ids: Iterable[int]) -> list[pb.BrokerHealth]:
        """The states of those of these brokers that are not simply up."""
        healths = self.snapshot.directory.healths
        return [_health(one, healths[one]) for one in sorted(broker_ids) if one in healths]

    def _key(self, uuid: str, placed: Placed | None, with_fallbacks: bool) -> tuple[_Key, Choice]:
        placement, home_id, location = placed or UNPLACED
        made = self._chosen(placement)
        is_known = placed is not None
        if not made.needs_devices:
            return _Key(placement, is_known, with_fallbacks), made.choice
        subject = Subject(uuid, home_id, placement.region, location)
        leaf, decision = finished(made.choice, self.snapshot.directory.healths, subject)
        return _Key(placement, is_known, with_fallbacks, leaf.source, decision), leaf

    def _resolution(self, key: _Key, choice: Choice, uuid: str, placed: Placed) -> pb.Resolution:
        resolution = self._resolutions.get(key)
        if resolution is not None:
            return resolution
        decision = key.decision
        if decision is None:
            subject = Subject(uuid, placed.home_id, placed.placement.region, placed.location)
            choice, decision = finished(choice, self.snapshot.directory.healths, subject)
        resolution = pb.Resolution(
            source=SOURCES[choice.source],
            known=key.is_known,
            stale=self.is_stale,
            pool_id=choice.pool.id if choice.pool else 0,
        )
        if decision is not None:
            resolution.broker_id = decision.broker_ids[0]
            resolution.situation = SITUATIONS[decision.situation]
            if key.with_fallbacks:
                resolution.fallback_broker_ids.extend(decision.broker_ids[1:])
        if len(self._resolutions) < MAX_REMEMBERED:
            self._resolutions[key] = resolution
        return resolution

    def _chosen(self, placement: Placement) -> _Made:
        made = self._choices.get(placement)
        if made is not None:
            return made
        directory = self.snapshot.directory
        if not directory.knows(placement):
            raise PlacementUnknown(
                "the broker service does not know the broker or fleet of this device yet"
            )
        choice = resolve(placement, directory).choice
        if choice is None:
            raise NoBrokerAllowed("none of the brokers of this device's fleet can serve")
        made = _Made(choice, choice.needs_devices(directory.healths))
        if len(self._choices) < MAX_REMEMBERED:
            self._choices[placement] = made
        return made

    def _shared(self, choice: Choice) -> pb.Resolution:
        """The choice itself, without a decision about a device."""
        return pb.Resolution(
            source=SOURCES[choice.source],
            broker_id=choice.broker_id or 0,
            known=True,
            stale=self.is_stale,
            pool_id=choice.pool.id if choice.pool else 0,
            next=self._shared(choice.next) if choice.next else None,
            backup_broker_id=choice.backup_id or 0,
            member_broker_ids=[one.broker_id for one in choice.pool.members] if choice.pool else [],
            region_location=location_message(choice.location),
        )


def _health(broker_id: int, health: Health) -> pb.BrokerHealth:
    return pb.BrokerHealth(
        broker_id=broker_id,
        state=health.state,
        is_full=health.is_full,
        returning_percent=health.returning_percent,
        salt=health.salt,
    )
