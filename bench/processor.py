"""The processor time of processes, as the kernel counts it."""

import os
from collections.abc import Iterable
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name: proc(5).
PARENT, USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM = 1, 11, 12, 13, 14


def used_s(pids: Iterable[int]) -> float:
    """The time of these processes, their living children, and the children that have ended."""
    found = _fields()
    family = [pid for pid in pids if pid in found]
    for pid in family:
        family += [child for child, fields in found.items() if int(fields[PARENT]) == pid]
    times = (USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM)
    return sum(int(found[pid][field]) for pid in family for field in times) / TICKS_PER_S


def _fields() -> dict[int, list[str]]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # The process has ended since.
            found[int(entry.name)] = stat.rpartition(")")[2].split()
    return found
