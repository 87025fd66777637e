"""The slots of a pool: a device belongs to one of 16,384 slots, and each slot is an order of the
pool's members.

The first member of each slot is stored, so that a change of members or weights moves the fewest
slots. The members after it are in the order of a weighted rendezvous hash, which changes only for
the members that change: <https://www.snia.org/sites/default/files/SDC15_presentations/dist_sys/
Jason_Resch_New_Consistent_Hashings_Rev.pdf>. The database has the rule of the first members as a
function, `pool_slots`.
"""

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

SLOTS = 16_384
_MASK = 2**64 - 1


def slot_of(uuid: str) -> int:
    """The slot of a device, the same in every pool: 14 bits of the SHA-256 of its uuid."""
    digest = hashlib.sha256(uuid.encode()).digest()
    return (digest[0] << 8 | digest[1]) >> 2


def shares(weights: Mapping[int, int]) -> dict[int, int]:
    """How many slots each member gets, by the largest remainders; without members of weight 0."""
    weights = {member: weight for member, weight in weights.items() if weight > 0}
    total = sum(weights.values())
    whole = {member: weight * SLOTS // total for member, weight in weights.items()}
    remainders = sorted(weights, key=lambda member: (-(weights[member] * SLOTS % total), member))
    for member in remainders[: SLOTS - sum(whole.values())] if whole else ():
        whole[member] += 1
    return whole


def settled(slots: Sequence[int], weights: Mapping[int, int]) -> list[int]:
    """The first member of each slot for these weights, with the fewest changes of `slots`; empty if
    no member has a weight.
    """
    wanted = shares(weights)
    if not wanted:
        return []
    missing = Counter(wanted)
    became = [0] * SLOTS
    free = []
    for place in range(SLOTS):
        member = slots[place] if place < len(slots) else 0
        if missing[member] > 0:
            missing[member] -= 1
            became[place] = member
        else:
            free.append(place)
    members = (member for member in sorted(wanted) for _ in range(missing[member]))
    for place, member in zip(free, members, strict=True):
        became[place] = member
    return became


def moved(slots: Sequence[int], became: Sequence[int]) -> Counter[tuple[int, int]]:
    """The number of slots that go from one member to another."""
    pairs = zip(slots, became, strict=False)
    return Counter((old, new) for old, new in pairs if old != new)


def order_of(slot: int, first: int | None, weights: Mapping[int, int]) -> tuple[int, ...]:
    """The members of a slot in order: the first, then the others by their rendezvous score. Members
    of weight 0 are left out.
    """
    others = (member for member, weight in weights.items() if weight > 0 and member != first)
    scored = sorted(others, key=lambda member: -_score(slot, member, weights[member]))
    return (first, *scored) if first is not None and weights.get(first) else tuple(scored)


class Orders:
    """The orders of all slots of one pool, each computed when it is first asked for. They take four
    bytes for each slot and member: a pool of 10 members needs 672 kB.
    """

    def __init__(
        self,
        slots: Sequence[int],
        weights: Mapping[int, int],
        priorities: Mapping[int, int] | None = None,
    ) -> None:
        """With `priorities`, the members of a slot are sorted by them first."""
        self._slots = slots
        self._weights = {member: weight for member, weight in weights.items() if weight > 0}
        self._priorities = priorities
        self._length = len(self._weights)
        self._known = bytearray(SLOTS)
        self._kept = array("i", bytes(4 * SLOTS * self._length))

    def of(self, slot: int) -> tuple[int, ...]:
        """The members of the slot in order; those of weight 0 are left out."""
        start = slot * self._length
        end = start + self._length
        if not self._known[slot]:
            self._kept[start:end] = array("i", self._computed(slot))
            self._known[slot] = 1
        return tuple(self._kept[start:end])

    def _computed(self, slot: int) -> Sequence[int]:
        first = self._slots[slot] if slot < len(self._slots) else None
        order = order_of(slot, first, self._weights)
        if self._priorities is None:
            return order
        return sorted(order, key=self._priorities.__getitem__)


def _score(slot: int, member: int, weight: int) -> float:
    # SplitMix64, which spreads the bits of small numbers: <https://prng.di.unimi.it/splitmix64.c>.
    mixed = (member * SLOTS + slot + 1) * 0x9E3779B97F4A7C15 & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    # With 52 bits and a half, a float is never rounded to 1, whose logarithm is 0.
    return weight / -math.log((((mixed ^ mixed >> 31) >> 12) + 0.5) / 2**52)
