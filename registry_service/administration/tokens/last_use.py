"""When tokens were last used: recorded in memory, and written from time to time.

Otherwise a script with a hundred requests a second would cause a hundred writes a second.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from chassis.errors import Unavailable

Moments = Mapping[UUID, datetime]

# The shortest time between two writes for one token.
EVERY = timedelta(minutes=1)
# How soon the first use is written, with other uses in this time.
LOOK_EVERY_S = 1.0


def due(used: Moments, written: Moments, now: datetime) -> dict[UUID, datetime]:
    """The uses to write now: those of tokens that were not written recently."""
    return {
        token_id: at
        for token_id, at in used.items()
        if token_id not in written or now - written[token_id] >= EVERY
    }


class LastUse:
    """The uses that are not written yet. After a crash, up to a minute of them is lost."""

    def __init__(self, write: Callable[[Moments], Awaitable[None]]) -> None:
        """`write` stores uses; it is retried after `Unavailable`."""
        self._write = write
        self._used: dict[UUID, datetime] = {}
        self._written: dict[UUID, datetime] = {}

    def note(self, token_id: UUID) -> None:
        """Records that a token is used now."""
        self._used[token_id] = datetime.now(UTC)

    async def keep_writing(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = datetime.now(UTC)
            with contextlib.suppress(Unavailable):
                await self._save(due(self._used, self._written, now), now)

    async def close(self) -> None:
        """Writes the uses that are left, unless the database is unavailable."""
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
