"""When tokens were last used: noted in memory, written now and then.

A script that asks a hundred times a second would otherwise write a hundred times a second.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from chassis.errors import Unavailable

Moments = Mapping[UUID, datetime]

# How often that of one token is written, at most.
EVERY = timedelta(minutes=1)
# How soon the first use is, and those that came with it.
LOOK_EVERY_S = 1.0


def due(used: Moments, written: Moments, now: datetime) -> dict[UUID, datetime]:
    """Of the uses that are not written yet, those of tokens that were not written lately."""
    return {
        token_id: at
        for token_id, at in used.items()
        if token_id not in written or now - written[token_id] >= EVERY
    }


class LastUse:
    """What is yet to be written. After a crash, up to a minute of it is lost."""

    def __init__(self, write: Callable[[Moments], Awaitable[None]]) -> None:
        """`write` may raise `Unavailable`: then it is tried again."""
        self._write = write
        self._used: dict[UUID, datetime] = {}
        self._written: dict[UUID, datetime] = {}

    def note(self, token_id: UUID) -> None:
        """It is used now."""
        self._used[token_id] = datetime.now(UTC)

    async def keep_writing(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = datetime.now(UTC)
            with contextlib.suppress(Unavailable):
                await self._save(due(self._used, self._written, now), now)

    async def close(self) -> None:
        """Writes what is left, if it can."""
        with contextlib.suppress(Unavailable):
            await self._save(dict(self._used), datetime.now(UTC))

    async def _save(self, moments: Moments, now: datetime) -> None:
        if not moments:
            return
        await self._write(moments)
        for token_id, at in moments.items():
            if self._used[token_id] == at:
                del self._used[token_id]
        lately = {of: at for of, at in self._written.items() if now - at < EVERY}
        self._written = lately | dict.fromkeys(moments, now)
