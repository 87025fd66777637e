"""What the console says of processes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.administration.system import Process
from gateway.console.process_words import problems_of, state_of, state_of_loop

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def process(loop: dict[str, Any] | None = None, **changes: Any) -> Process:
    """The process of the example, which works, with `changes`; `loop` changes its loop."""
    made = msgspec.convert(Process.EXAMPLE, Process)
    [one] = made.loops
    loops = [msgspec.structs.replace(one, **(loop or {}))]
    return msgspec.structs.replace(made, **{"seen_at": NOW, "loops": loops, **changes})


@pytest.mark.parametrize(
    ("found", "word", "kind", "said"),
    [
        (process(), "Ready", "ok", ""),
        (process(is_ready=False), "Starting", "info", ""),
        (
            process(state="lost", seen_at=NOW - 3 * MINUTE, has_problem=True),
            "No report",
            "bad",
            "No process of this name has started since.",
        ),
        (
            process(state="lost", seen_at=NOW - 3 * MINUTE),
            "No report",
            "off",
            "Another process of this name has started since.",
        ),
        (
            process(state="ended", ended_at=NOW - 3 * MINUTE, has_problem=True),
            "Ended",
            "bad",
            "It ended 3 minutes ago, and no process of this name runs.",
        ),
        (process(state="ended", ended_at=NOW - 3 * MINUTE), "Ended", "off", ""),
        (
            process(
                {"problem": "DOWN", "failing_since": NOW - 3 * MINUTE},
                checks={"jobs": "DOWN"},
                is_ready=False,
                has_problem=True,
            ),
            "Not ready",
            "bad",
            "The loop jobs has failed for 3 minutes: DOWN.",
        ),
        (
            process({"is_late": True, "succeeded_at": NOW - 30 * MINUTE}, has_problem=True),
            "A loop fails",
            "bad",
            "The loop jobs did its work 30 minutes ago.",
        ),
        (
            process({"is_late": True, "succeeded_at": None}, has_problem=True),
            "A loop fails",
            "bad",
            "The loop jobs has not done its work yet.",
        ),
        (
            process(checks={"database": "refused"}, is_ready=False, has_problem=True),
            "Not ready",
            "bad",
            "The check database says: refused.",
        ),
    ],
)
def test_the_state_of_a_process(found: Process, word: str, kind: str, said: str) -> None:
    assert state_of(found)[:2] == (kind, word)
    told = " ".join(problems_of(found, NOW))
    assert told.endswith(said)
    assert bool(told) == bool(said)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "Works"),
        ({"problem": "starting", "succeeded_at": None}, "Starting"),
        ({"problem": "starting", "is_late": True}, "Late"),
        ({"problem": "DOWN", "failing_since": NOW}, "Fails"),
    ],
)
def test_the_state_of_a_loop(changes: dict[str, Any], word: str) -> None:
    assert state_of_loop(process(changes).loops[0])[1] == word
