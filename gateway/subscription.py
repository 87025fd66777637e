"""What one subscriber to changes has not seen yet."""

import asyncio
import math
from contextlib import suppress


class Subscription:
    """The changes that one subscriber has not seen yet."""

    def __init__(
        self,
        kinds: frozenset[str],
        unseen: frozenset[str],
        seen: str,
        *,
        every_s: float | None = None,
    ) -> None:
        """`kinds` are the kinds of interest. With `every_s`, all of them count as changed as often,
        and what really changes makes no difference.
        """
        self._kinds = kinds
        self._every_s = every_s
        self._due_at = asyncio.get_running_loop().time() if every_s is not None else math.inf
        self._unseen = set(unseen & kinds)
        self._latest = seen
        # The gateway is about to stop.
        self.is_over = False
        self._is_changed = asyncio.Event()
        if self._unseen:
            self._is_changed.set()

    def note(self, kinds: frozenset[str], position: str) -> None:
        """Adds changes. A subscriber that is slow gets them together."""
        if self._every_s is None:
            self._latest = position
            self._add(kinds)

    def _add(self, kinds: frozenset[str]) -> None:
        if new := kinds & self._kinds:
            self._unseen |= new
            self._is_changed.set()

    def end(self) -> None:
        """No more changes will be added."""
        self.is_over = True
        self._is_changed.set()

    async def wait(self, within_s: float) -> None:
        """Returns when there are changes that the subscriber has not taken, when the subscription
        is over, and after `within_s` at the latest.
        """
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(within_s, self._due_at - loop.time())):
                await self._is_changed.wait()
        if self._every_s is not None and loop.time() >= self._due_at:
            self._due_at = loop.time() + self._every_s
            self._add(self._kinds)

    def take(self) -> tuple[str, frozenset[str]]:
        """The position after them, and the kinds that changed since the last call; perhaps none."""
        taken = frozenset(self._unseen)
        self._unseen.clear()
        if not self.is_over:
            self._is_changed.clear()
        return self._latest, taken
