"""Restarts of a process that has ended: the first at once, later ones after growing pauses."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from local.errors import CannotRun

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
# After a process has run for so long, its next restart has the shortest pause.
STEADY_S = 30.0


class Revival:
    """Decides when one process is started again. A start that fails counts like an end."""

    def __init__(self) -> None:
        """The process has not ended yet."""
        self._ends = 0
        self._due: float | None = None
        self._started_at = 0.0

    def started(self) -> None:
        """Records that the process was started now."""
        self._started_at = time.monotonic()
        self._due = None

    def attempt(self, start: Callable[[], None], why: Callable[[], str]) -> float | None:
        """Calls `start` if the pause is over. `why` says how the process ended.

        Returns when the pause is over, by the monotonic clock, or None when the process was
        started.
        """
        if self._due is None:
            if time.monotonic() - self._started_at >= STEADY_S:
                self._ends = 0
            self._pause(why())
        if self._due is not None and self._due > time.monotonic():
            return self._due
        try:
            start()
        except CannotRun as reason:
            return self._pause(str(reason))
        except OSError as error:
            return self._pause(f"{error.filename}: {error.strerror}")
        self.started()
        return None

    def _pause(self, reason: str) -> float:
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._ends, 10))
        self._ends += 1
        self._due = time.monotonic() + pause_s
        tell(f"{reason}\nmooring: next start in {pause_s:g} s")
        return self._due


def tell(news: str) -> None:
    """Prints to the terminal, which may have been closed."""
    with suppress(OSError):
        print(f"mooring: {news}", file=sys.stderr, flush=True)
