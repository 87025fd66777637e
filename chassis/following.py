"""Keeps a part of the database in memory, and reads it again when a change is announced."""

import asyncio
from abc import ABC, abstractmethod

from chassis.listening import Listener
from chassis.process import background

# How often data is read if no change is announced, because an announcement may have been missed.
# Announced changes take effect at once.
REREAD_S = 10.0
# Announcements at shorter intervals share a reading.
PAUSE_S = 0.05


class Follower(ABC):
    """Keeps data in memory. Readings run one after the other, so that an old result never replaces
    a newer one.
    """

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
        """Reads and stores the result; if reading fails, marks the memory as invalid. Only one
        reading runs at a time.
        """

    async def _noticed(self) -> None:
        """It is called before each reading that the listener causes."""
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
            # If the caller is cancelled, this is not reached, and the next waiting call reads.
            self._read_as_of = begun

    async def keep_current(self) -> None:
        """Runs until cancelled. It listens first and then reads, so that no change is missed in
        between. If it cannot listen, it still reads at each attempt.
        """
        async with background(self._listener.run()):
            while True:
                await self._listener.occasion(within_s=REREAD_S)
                await self._noticed()
                await self.refresh()
                self._has_begun.set()
                await asyncio.sleep(PAUSE_S)

    async def begun(self) -> None:
        """Returns after `keep_current` has tried once to listen and to read."""
        await self._has_begun.wait()
