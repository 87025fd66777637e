"""Pools as messages. Each is made once for as long as the pool stays the same object."""

import hashlib
from collections.abc import Container

from mooring.broker.v1 import resolution_pb2 as pb

from domain.pools import Location, Pool

# Pools that are gone are forgotten when there are more.
MAX_REMEMBERED = 2_000


class PoolMessages:
    """The messages of the pools that were sent."""

    def __init__(self) -> None:
        # By id: the pool, its message, and the same without slots.
        self._made: dict[int, tuple[Pool, pb.Pool, pb.Pool]] = {}

    def of(self, pool: Pool, known_slots: Container[bytes]) -> pb.Pool:
        """The message; without slots if the caller has them."""
        made = self._made.get(pool.id)
        if made is None or made[0] is not pool:
            if len(self._made) >= MAX_REMEMBERED:
                self._made.clear()
            made = self._made[pool.id] = (pool, *_messages(pool))
        _, whole, without_slots = made
        return without_slots if whole.slots_hash in known_slots else whole


def location_message(location: Location | None) -> pb.Location | None:
    """The location as a message."""
    return pb.Location(latitude=location[0], longitude=location[1]) if location else None


def _messages(pool: Pool) -> tuple[pb.Pool, pb.Pool]:
    packed = b"".join(slot.to_bytes(4, "big") for slot in pool.slots)
    without_slots = pb.Pool(
        id=pool.id,
        policy=pool.policy,
        is_sticky=pool.is_sticky,
        members=[
            pb.PoolMember(
                broker_id=member.broker_id,
                weight=member.weight,
                priority=member.priority,
                region=member.region,
                location=location_message(member.location),
            )
            for member in pool.members
        ],
        rebalance_percent=pool.rebalance_percent,
        rebalance_salt=pool.rebalance_salt,
        slots_hash=hashlib.sha256(packed).digest()[:16],
    )
    whole = pb.Pool()
    whole.CopyFrom(without_slots)
    whole.slots.extend(pool.slots)
    return whole, without_slots
