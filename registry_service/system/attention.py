"""Which processes a person should look at. Pure functions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

# A process may not be ready for this time after its start.
STARTING = timedelta(seconds=30)
# A loop that has not done its work for this time is late. Every loop is due more often.
LATE_AFTER = timedelta(minutes=10)


class Reported(Protocol):
    """A process, as it last reported its state."""

    @property
    def id(self) -> UUID: ...
    @property
    def process(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def seen_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def is_lost(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def loops(self) -> Mapping[str, Any]: ...


def is_late(process: Reported, loop: Mapping[str, Any]) -> bool:
    """Whether a loop had not done its work for long when its process reported."""
    since = moment_in(loop.get("succeeded_at")) or process.started_at
    return process.seen_at - since > LATE_AFTER


def with_problem(found: Iterable[Reported]) -> set[UUID]:
    """The ids of the processes of an installation that a person should look at.

    A process that runs: it is not ready, or a loop of it fails or is late. One that was lost: no
    process of its name has started since. One that ended: it was the last of its name, and none of
    its name runs.
    """
    by_name: dict[str, list[Reported]] = defaultdict(list)
    for process in found:
        by_name[process.process].append(process)
    return {
        process.id for same in by_name.values() for process in same if _has_problem(process, same)
    }


def _has_problem(process: Reported, same: list[Reported]) -> bool:
    """`same` are all processes of its name."""
    if _runs(process):
        is_starting = process.seen_at - process.started_at < STARTING
        return (not process.is_ready and not is_starting) or any(
            moment_in(loop.get("failing_since")) or is_late(process, loop)
            for loop in process.loops.values()
        )
    if process.is_lost:
        others = (other for other in same if other.id != process.id)
        return not any(other.started_at > process.seen_at for other in others)
    last = max(same, key=lambda other: (other.seen_at, other.id))
    return process is last and not any(map(_runs, same))


def _runs(process: Reported) -> bool:
    return process.ended_at is None and not process.is_lost


def moment_in(stored: Any) -> datetime | None:
    """A time of a loop as it is stored."""
    return datetime.fromisoformat(stored) if stored else None
