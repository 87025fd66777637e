"""Starting a process again that has ended: at once the first time, later after longer pauses."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from local.errors import CannotRun

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
# A process that ran for so long begins with the shortest pause when it ends.
STEADY_S = 30.0


class Revival:
    """When one process is started again. A start that fails counts like a process that ended."""

    def __init__(self) -> None:
        """The process has not ended yet."""
        self._ends = 0
        self._due: float | None = None
        self._started_at = 0.0

    def started(self) -> None:
        """The process was started now."""
        self._started_at = time.monotonic()
        self._due = None

    def attempt(self, start: Callable[[], None], why: Callable[[], str]) -> float | None:
        """Calls `start` if the pause is over. `why` says how the process ended.

        Returns when the pause is over, by the monotonic clock; None when the process was started.
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
    """Says something to the person at the terminal, who may have left."""
    with suppress(OSError):
        print(f"mooring: {news}", file=sys.stderr, flush=True)
