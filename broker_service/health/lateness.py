"""Measures how late this process runs.

A process that gets no processor time, or was stopped, finds its time limits passed although the
broker answered in time. So a failure counts only if this process was on time.
"""

import asyncio

TICK_S = 0.1
# Timers are late by some milliseconds even on a busy machine.
LATE_S = 0.5
# Consequences may be noticed a little later, such as connections that the broker has closed.
AFTERMATH_S = 1.0


class Lateness:
    """Watches the timers of the event loop."""

    def __init__(self) -> None:
        """Call `watch` before other methods are of use."""
        self._due_at = float("inf")
        self._late_at = float("-inf")

    async def watch(self) -> None:
        """Runs until it is cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            self._due_at = clock() + TICK_S
            await asyncio.sleep(TICK_S)
            if clock() - self._due_at > LATE_S:
                self._late_at = clock()

    def since(self, moment: float) -> bool:
        """Whether this process was late at or after `moment`, by the loop's clock, or so shortly
        before it that it matters. A tick may be late now and not noticed yet.
        """
        now = asyncio.get_running_loop().time()
        return self._late_at >= moment - AFTERMATH_S or now - self._due_at > LATE_S
