"""The choices of the broker service, and how they are finished for each device.

Devices of one placement share a choice. Of a pool, all devices together get few different orders of
brokers, so each order is one object that many devices share.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mooring.broker.v1 import resolution_pb2 as pb

from domain.choices import Choice, finished, limited
from domain.pools import Decision, Health, Location, Member, Policy, Pool, Situation, State, Subject

SITUATIONS = {
    Situation.USUAL: pb.SITUATION_UNSPECIFIED,
    Situation.FAILOVER: pb.SITUATION_FAILOVER,
    Situation.DOWN: pb.SITUATION_DOWN,
    Situation.DOUBTED: pb.SITUATION_DOUBTED,
    Situation.OVERFILLED: pb.SITUATION_OVERFILLED,
}
# The most pools of which the slots are kept, and the most orders that a choice keeps.
MAX_POOLS = 1_000
MAX_ORDERS = 20_000


@dataclass(frozen=True, slots=True)
class Answer:
    """The broker, or None for `environment_url`."""

    source: pb.Source.ValueType
    broker: pb.BrokerSettings | None
    is_stale: bool = False
    # The brokers to turn to if the device cannot reach this one, in order.
    fallbacks: tuple[pb.BrokerSettings, ...] = ()
    # All of them, with the device's own first, whichever serves now. None stands for `broker`
    # alone.
    told: tuple[pb.BrokerSettings, ...] | None = None
    # The home of the device; None if no pool is in charge.
    home_id: int | None = None
    situation: pb.Situation.ValueType = pb.SITUATION_UNSPECIFIED

    @property
    def all_told(self) -> tuple[pb.BrokerSettings, ...]:
        """The brokers of the answer as the device's row records them."""
        if self.told is not None:
            return self.told
        return () if self.broker is None else (self.broker,)

    @property
    def is_stopgap(self) -> bool:
        """Whether the device should ask again soon."""
        return self.is_stale or self.situation in (pb.SITUATION_FAILOVER, pb.SITUATION_DOWN)


class Shared:
    """The choice that all devices with a placement share, and their answers."""

    def __init__(
        self,
        choice: Choice,
        brokers: Mapping[int, pb.BrokerSettings],
        healths: Mapping[int, Health],
        *,
        is_stale: bool = False,
    ) -> None:
        """The `source` of the choice is that of the message; `brokers` has all that it names."""
        self._choice = choice
        self._brokers = brokers
        self._healths = healths
        self._is_stale = is_stale
        self._answers: dict[tuple[object, Decision | None], Answer] = {}
        self._same: Answer | None = None
        if not choice.needs_devices(healths):
            self._same = self._answer(*finished(choice, healths, Subject("")))

    @property
    def is_by_distance(self) -> bool:
        """Whether the homes of its devices are chosen by their distance."""
        pool = self._choice.pool
        return pool is not None and pool.policy is Policy.NEAREST

    def of(self, subject: Subject) -> Answer:
        """The answer for a device."""
        if self._same is not None:
            return self._same
        choice, decision = finished(self._choice, self._healths, subject)
        key = choice.source, decision
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answer(choice, decision)
            if len(self._answers) < MAX_ORDERS:
                self._answers[key] = answer
        return answer

    def as_stale(self) -> "Shared":
        """The same choice as a stopgap."""
        return Shared(self._choice, self._brokers, self._healths, is_stale=True)

    def _answer(self, choice: Choice, decision: Decision | None) -> Answer:
        if decision is None:
            return Answer(choice.source, None, self._is_stale)
        broker, *fallbacks = (self._brokers[one] for one in decision.broker_ids)
        return Answer(
            choice.source,
            broker,
            self._is_stale,
            tuple(fallbacks),
            tuple(self._brokers[one] for one in decision.told_ids),
            decision.home_id,
            SITUATIONS[decision.situation],
        )


class Pools:
    """The pools of the last answers: their slots are sent only once, and a pool that has not
    changed stays the same object.
    """

    def __init__(self) -> None:
        self._slots: OrderedDict[bytes, Sequence[int]] = OrderedDict()
        self._pools: dict[int, tuple[bytes, Pool]] = {}

    @property
    def hashes(self) -> list[bytes]:
        """The hashes of the slots that are known."""
        return list(self._slots)

    def read(self, message: pb.Pool) -> Pool:
        """The pool of a message."""
        slots: Sequence[int] = list(message.slots) or self._slots.get(message.slots_hash, ())
        if slots:
            self._slots[message.slots_hash] = slots
            self._slots.move_to_end(message.slots_hash)
        while len(self._slots) > MAX_POOLS:
            self._slots.popitem(last=False)
        message.ClearField("slots")
        content = message.SerializeToString(deterministic=True)
        known = self._pools.get(message.id)
        if known is not None and known[0] == content:
            return known[1]
        pool = Pool(
            message.id,
            tuple(
                Member(
                    member.broker_id,
                    member.weight,
                    member.priority,
                    member.region,
                    _location(member) if member.HasField("location") else None,
                )
                for member in message.members
            ),
            Policy(message.policy),
            message.is_sticky,
            slots,
            message.rebalance_percent,
            message.rebalance_salt,
        )
        if len(self._pools) > MAX_POOLS:
            self._pools.clear()
        self._pools[message.id] = content, pool
        return pool


class Read:
    """What one response of the broker service says about brokers and pools."""

    def __init__(self, response: pb.ResolveBrokersResponse, pools: Pools) -> None:
        self._brokers = {broker.id: broker for broker in response.brokers}
        self._pools = {pool.id: pools.read(pool) for pool in response.pools}
        self._healths = {
            health.broker_id: Health(
                State(health.state), health.is_full, health.returning_percent, health.salt
            )
            for health in response.healths
        }

    def shared(self, resolution: pb.Resolution) -> Shared:
        """The choice of a resolution of a placement."""
        return Shared(self._choice(resolution), self._brokers, self._healths)

    def _choice(self, resolution: pb.Resolution) -> Choice:
        pool = self._pools.get(resolution.pool_id)
        if pool is not None:
            pool = limited(pool, frozenset(resolution.member_broker_ids))
        return Choice(
            resolution.source,
            resolution.broker_id or None,
            resolution.backup_broker_id or None,
            pool,
            self._choice(resolution.next) if resolution.HasField("next") else None,
            _location(resolution, "region_location")
            if resolution.HasField("region_location")
            else None,
        )


def _location(message: pb.PoolMember | pb.Resolution, name: str = "location") -> Location:
    location = getattr(message, name)
    return location.latitude, location.longitude
