"""Processes in words: how one does, and what is wrong with it. Pure functions."""

from datetime import datetime

from gateway.administration.system import Process, ProcessLoop
from gateway.console.templates import until

SERVING = "serving"


def state_of(process: Process) -> tuple[str, str, str]:
    """The kind, the word and the icon of a process's state."""
    kind = "bad" if process.has_problem else "off"
    if process.state == "lost":
        return kind, "No report", "x"
    if process.state == "ended":
        return kind, "Ended", "off"
    if process.has_problem:
        return "bad", "Not ready" if not process.is_ready else "A loop fails", "warn"
    return ("ok", "Ready", "check") if process.is_ready else ("info", "Starting", "clock")


def state_of_loop(loop: ProcessLoop) -> tuple[str, str, str]:
    """The kind, the word and the icon of a loop's state."""
    if loop.failing_since:
        return "bad", "Fails", "x"
    if loop.is_late:
        return "bad", "Late", "clock"
    if loop.problem:
        return "info", "Starting", "clock"
    return "ok", "Works", "check"


def problems_of(process: Process, now: datetime) -> list[str]:
    """What is wrong, a sentence each."""
    if process.state == "lost" and process.seen_at:
        since = until(process.seen_at, now)
        after = (
            "No process of this name has started since."
            if process.has_problem
            else "Another process of this name has started since."
        )
        why = "it was killed, hangs, or cannot reach the database"
        return [f"It has not reported for {since}: {why}. {after}"]
    if process.state == "ended" and process.ended_at:
        when = f"It ended {until(process.ended_at, now)} ago"
        return [f"{when}, and no process of this name runs."] if process.has_problem else []
    loops = [_problem_of(loop, now) for loop in process.loops]
    names = {loop.name for loop in process.loops}
    checks = [
        f"The check {name} says: {text}."
        for name, text in process.checks.items()
        # The checks of loops say what the loops say.
        if text != SERVING and name not in names and process.has_problem
    ]
    return [problem for problem in (*checks, *loops) if problem]


def _problem_of(loop: ProcessLoop, now: datetime) -> str:
    if loop.failing_since:
        return (
            f"The loop {loop.name} has failed for {until(loop.failing_since, now)}: {loop.problem}."
        )
    if loop.is_late and loop.succeeded_at:
        return f"The loop {loop.name} did its work {until(loop.succeeded_at, now)} ago."
    return f"The loop {loop.name} has not done its work yet." if loop.is_late else ""
