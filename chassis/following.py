"""Keeping in memory what the database holds: read again when it announces that it has changed."""

import asyncio
from abc import ABC, abstractmethod

from chassis.listening import Listener
from chassis.process import background

# A safety net under the announcements, which are what makes a change take effect at once.
REREAD_S = 10.0
# Announcements that come closer than this share a reading.
PAUSE_S = 0.05


class Follower(ABC):
    """Readings take turns, so that none overwrites one that began after it."""

    def __init__(self, listener: Listener) -> None:
        """`listener` hears of changes."""
        self._listener = listener
        self._reading = asyncio.Lock()
        # Readings are numbered as they begin; `_read_as_of` is the last one that ended.
        self._reads_begun = 0
        self._read_as_of = 0
        self._has_begun = asyncio.Event()

    @abstractmethod
    async def _read(self) -> None:
        """Reads, and keeps what it read; where it cannot, memory is marked as not to be believed.

        There is one at a time.
        """

    async def _noticed(self) -> None:
        """Called before a reading that the listener gave occasion to."""
        return

    async def refresh(self) -> None:
        """Returns when memory holds what was committed before the call, or is not believed.

        Calls that wait at the same time share one reading.
        """
        wanted = self._reads_begun + 1
        async with self._reading:
            if self._read_as_of >= wanted:
                return
            self._reads_begun += 1
            begun = self._reads_begun
            await self._read()
            # Not reached by a caller who is cancelled: whoever waits then reads for itself.
            self._read_as_of = begun

    async def keep_current(self) -> None:
        """Runs until cancelled: listens, then reads, so that no change falls in between.

        Where it cannot listen it reads all the same, as often as it tries.
        """
        async with background(self._listener.run()):
            while True:
                await self._listener.occasion(within_s=REREAD_S)
                await self._noticed()
                await self.refresh()
                self._has_begun.set()
                await asyncio.sleep(PAUSE_S)

    async def begun(self) -> None:
        """Returns when `keep_current` has tried for the first time to listen and to read."""
        await self._has_begun.wait()
