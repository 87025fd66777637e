"""How far a rollout has come, and whom it has reached.

Where a device stands is a stable hash, so a rollout that is widened only ever reaches more devices,
one that is narrowed lets go of those that came last, and every process answers alike without
keeping a list. The database has the same as a function, `rollout_position`.
"""

import hashlib

POSITIONS = 10_000


def position(salt: str, uuid: str) -> int:
    """Where a device stands, from 0 to 9,999: it is reached in that order.

    Another salt is another order. Both are identifiers (chassis/validation.py), with which the
    database's function is sure to agree.
    """
    digest = hashlib.sha256(f"{salt}/{uuid}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % POSITIONS


def is_reached(percent: float, place: int) -> bool:
    """Whether a rollout to `percent`, 0 to 100 with two decimals, has reached that position."""
    return place < round(percent * (POSITIONS // 100))


def wave_of(salt: str, percent: float, uuid: str) -> str:
    """What a device's placement says of a rollout: its salt if it has reached it, else nothing."""
    return salt if is_reached(percent, position(salt, uuid)) else ""
