"""Keeps a part of the database in memory, and reads it again when a change is announced."""

import asyncio
from abc import ABC, abstractmethod

from chassis.listening import Listener
from chassis.process import background

# A reading without an announcement, in case one was missed. Announcements make changes take effect
# at once.
REREAD_S = 10.0
# Announcements at shorter intervals share a reading.
PAUSE_S = 0.05


class Follower(ABC):
    """Readings run one after the other, so that none overwrites a later one."""

    def __init__(self, listener: Listener) -> None:
        """`listener` receives announcements of changes."""
        self._listener = listener
        self._reading = asyncio.Lock()
        # Readings are numbered as they begin; `_read_as_of` is the last one that ended.
        self._reads_begun = 0
        self._read_as_of = 0
        self._has_begun = asyncio.Event()

    @abstractmethod
    async def _read(self) -> None:
        """Reads and stores the result; if it cannot, memory is marked as invalid. One reading runs
        at a time.
        """

    async def _noticed(self) -> None:
        """Called before a reading that the listener causes."""
        return

    async def refresh(self) -> None:
        """Returns when memory holds everything that was committed before the call, or is marked as
        invalid. Calls that wait at the same time share one reading.
        """
        wanted = self._reads_begun + 1
        async with self._reading:
            if self._read_as_of >= wanted:
                return
            self._reads_begun += 1
            begun = self._reads_begun
            await self._read()
            # A cancelled caller does not get here: then the next waiting call reads itself.
            self._read_as_of = begun

    async def keep_current(self) -> None:
        """Runs until cancelled: listens, then reads, so that no change is missed in between. If it
        cannot listen, it still reads at each attempt.
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
