"""Which processes a person should look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from registry_service.system.attention import LATE_AFTER, STARTING, is_late, with_problem

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
S = timedelta(seconds=1)


@dataclass(frozen=True)
class Process:
    """A process that works, but for what the test changes."""

    process: str = "worker"
    started_at: datetime = NOW - timedelta(hours=1)
    seen_at: datetime = NOW
    ended_at: datetime | None = None
    is_lost: bool = False
    is_ready: bool = True
    loops: Mapping[str, Any] = field(default_factory=dict)
    id: UUID = field(default_factory=uuid4)


def lost(ago: timedelta, **changes: Any) -> Process:
    return Process(seen_at=NOW - ago, is_lost=True, **changes)


def ended(ago: timedelta, **changes: Any) -> Process:
    return Process(seen_at=NOW - ago, ended_at=NOW - ago, **changes)


def begun(ago: timedelta, **changes: Any) -> Process:
    return Process(started_at=NOW - ago, **changes)


def loop(succeeded: timedelta | None = None, failing: timedelta | None = None) -> dict[str, Any]:
    def text(ago: timedelta | None) -> str | None:
        return None if ago is None else (NOW - ago).isoformat()

    return {"one": {"problem": "", "succeeded_at": text(succeeded), "failing_since": text(failing)}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], []),
        ([Process(), Process()], []),
        # It runs.
        ([Process(is_ready=False), Process()], [0]),
        ([begun(STARTING - S, is_ready=False)], []),
        ([begun(STARTING, is_ready=False)], [0]),
        ([Process(loops=loop(S))], []),
        ([Process(loops=loop(timedelta(), failing=S))], [0]),
        ([Process(loops=loop(LATE_AFTER))], []),
        ([Process(loops=loop(LATE_AFTER + S))], [0]),
        ([Process(loops=loop())], [0]),
        ([begun(LATE_AFTER, loops=loop())], []),
        ([Process(loops={})], []),
        # It was lost: a process of its name has started since, or not.
        ([lost(60 * S)], [0]),
        ([lost(60 * S), Process()], [0]),
        # By its own clock, which is fast, it started after its last report.
        ([lost(60 * S, started_at=NOW)], [0]),
        ([lost(60 * S), begun(59 * S)], []),
        ([lost(60 * S), begun(59 * S, process="gateway")], [0]),
        ([lost(90 * S), lost(60 * S, started_at=NOW - 80 * S)], [1]),
        ([lost(90 * S), ended(60 * S, started_at=NOW - 80 * S)], [1]),
        # It ended: others run, or not.
        ([ended(60 * S)], [0]),
        ([ended(60 * S), Process()], []),
        ([ended(60 * S), ended(61 * S)], [0]),
        ([ended(60 * S), Process(process="gateway")], [0]),
        ([ended(60 * S), lost(61 * S)], [0, 1]),
    ],
)
def test_processes_that_a_person_should_look_at(found: list[Process], expected: list[int]) -> None:
    problems = with_problem(found)
    assert [number for number, one in enumerate(found) if one.id in problems] == expected
    assert with_problem(reversed(found)) == problems


def test_of_processes_that_ended_at_once_one_has_the_problem() -> None:
    assert len(with_problem([ended(S), ended(S), ended(S)])) == 1


def test_a_loop_is_late_by_the_last_report() -> None:
    stored = loop(timedelta(hours=2))["one"]
    assert is_late(Process(), stored)
    assert not is_late(lost(timedelta(hours=2)), stored)
