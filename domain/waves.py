"""The progress of a rollout, and the devices that it has reached. The position of a device is a
stable hash. So a wider rollout only adds devices, a narrower one removes those that were added
last, and every process gives the same answer without a list. The database has the same rule as a
function, `rollout_position`.
"""

import hashlib

POSITIONS = 10_000


def position(salt: str, uuid: str) -> int:
    """The position of a device, from 0 to 9,999: devices are reached in that order. Another salt
    gives another order. Both arguments are identifiers (chassis/validation.py), for which the
    database's function gives the same result.
    """
    digest = hashlib.sha256(f"{salt}/{uuid}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % POSITIONS


def is_reached(percent: float, place: int) -> bool:
    """Whether a rollout to `percent`, 0 to 100 with two decimals, has reached that position."""
    return place < round(percent * (POSITIONS // 100))


def wave_of(salt: str, percent: float, uuid: str) -> str:
    """The wave in a device's placement: the salt of the rollout if it has reached the device, else
    empty.
    """
    return salt if is_reached(percent, position(salt, uuid)) else ""
