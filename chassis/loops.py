"""The loops of a worker process.

Each loop runs independently. A loop that fails is started again after a pause, and the other loops
continue meanwhile. Metrics show when each loop last succeeded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from prometheus_client import Counter, Gauge

from chassis.errors import MooringError
from chassis.probes import STARTING, Readiness

log = structlog.get_logger(__name__)

# The first pause of a failed loop, and the longest one. Each pause is twice as long as the one
# before.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

SUCCEEDED = Gauge(
    "mooring_loop_succeeded_timestamp_seconds", "When a loop last did its work, by loop", ["loop"]
)
FAILED = Counter("mooring_loop_failures_total", "How often a loop failed, by loop", ["loop"])

# A function that does the work that is due, and returns the seconds until it is called again.
Turn = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Loop:
    """Work that is repeated."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Turn]]
    """Reads the loop's secrets, and opens what it needs until the end of the block."""


@dataclass(frozen=True, slots=True)
class LoopState:
    """How a loop is doing. Times are in UTC."""

    # Why the loop does not do its work; empty if it does. It is STARTING before its first turn.
    problem: str
    # When it last did its work; None if it never did.
    succeeded_at: datetime | None = None
    # When the first of the failures was that came after the last success.
    failing_since: datetime | None = None


class States:
    """The state of each loop; a loop is starting until its first turn has ended."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names` are the loops that will be run."""
        self._states = {name: LoopState(STARTING) for name in names}

    def note(self, name: str, problem: str) -> None:
        """Records `problem`, the reason why a loop does not do its work; empty if it does."""
        before, now = self._states.get(name), datetime.now(UTC)
        succeeded_at = before.succeeded_at if before else None
        if not problem:
            self._states[name] = LoopState("", succeeded_at=now)
        elif problem == STARTING:
            self._states[name] = LoopState(STARTING, succeeded_at)
        else:
            since = before.failing_since if before else None
            self._states[name] = LoopState(problem, succeeded_at, since or now)

    def now(self) -> dict[str, LoopState]:
        """The states by the names of the loops."""
        return dict(self._states)

    async def readiness(self) -> Readiness:
        """For probes: whether all loops do their work."""
        checks = {name: state.problem or "serving" for name, state in self._states.items()}
        return not any(state.problem for state in self._states.values()), checks


class UnknownLoop(ValueError):
    """A name that no loop has."""


def chosen(loops: Sequence[Loop], names: Collection[str]) -> list[Loop]:
    """The loops with these names, or all if `names` is empty. Raises `UnknownLoop`."""
    known = {loop.name for loop in loops}
    if unknown := sorted(set(names) - known):
        raise UnknownLoop(
            f"no loop is called {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )
    return [loop for loop in loops if not names or loop.name in names]


async def run(loops: Iterable[Loop], states: States | None = None) -> None:
    """Runs the loops until it is cancelled."""
    noted = states or States()
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            noted.note(loop.name, STARTING)
            group.create_task(_keep_running(loop, noted), name=loop.name)


async def _keep_running(loop: Loop, states: States) -> None:
    failures = 0

    def pause_s(reason: str) -> float:
        nonlocal failures
        FAILED.labels(loop.name).inc()
        states.note(loop.name, reason)
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**failures)
        failures = min(failures + 1, 16)
        log.warning("a loop cannot do its work now", loop=loop.name, reason=reason, pause_s=pause)
        return pause

    SUCCEEDED.labels(loop.name).set(0)
    while True:
        try:
            async with loop.open() as turn:
                while True:
                    try:
                        wait_s = await turn()
                    except MooringError as error:
                        # For example, the database is down. The loop keeps its open resources.
                        wait_s = pause_s(error.reason)
                    else:
                        failures = 0
                        states.note(loop.name, "")
                        SUCCEEDED.labels(loop.name).set_to_current_time()
                    await asyncio.sleep(wait_s)
        except MooringError as error:
            wait_s = pause_s(error.reason)
        except Exception as error:
            # This is a fault of Mooring. The resources of the loop are closed and opened again.
            log.exception("a loop has failed", loop=loop.name)
            wait_s = pause_s(type(error).__name__)
        await asyncio.sleep(wait_s)
