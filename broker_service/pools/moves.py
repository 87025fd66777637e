"""Which devices a change of a pool's members moves: slots exactly, devices about."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.slots import moved


@dataclass(frozen=True, slots=True)
class Move:
    """What goes from one member to another."""

    from_id: int
    to_id: int
    slots: int
    # About how many.
    devices: int


def moves_of(slots: Sequence[int], became: Sequence[int], devices: Mapping[int, int]) -> list[Move]:
    """The moves between members in the order of their ids. `slots` and `became` are the members of
    the slots before and after; `devices` are the numbers of devices of the members before.
    """
    held = Counter(slots)
    return [
        Move(old, new, count, round(devices.get(old, 0) * count / held[old]))
        for (old, new), count in sorted(moved(slots, became).items())
    ]
