"""Passwords whose hashes were made to be slow, as some that were imported: checked in threads."""

import asyncio
import hashlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from chassis.errors import Overloaded
from registry_service.access.passwords import is_password
from registry_service.access.subjects import Password

# Computed at the same time. Whoever guesses keeps as many cores busy, and no more than
# `MAX_WAITING` others waiting.
AT_ONCE = 2
MAX_WAITING = 64
MAX_PROVED = 10_000


class SlowPasswords:
    """What was right once is remembered by a hash that is quick."""

    def __init__(self) -> None:
        """Knows of none."""
        # Threads of its own: one goes on with what nobody waits for any more.
        self._threads = ThreadPoolExecutor(AT_ONCE, "slow-password")
        self._waiting = 0
        self._proved: OrderedDict[Password, bytes] = OrderedDict()

    def is_proved(self, kept: Password, shown: str) -> bool:
        """Whether this was right before."""
        proof = self._proved.get(kept)
        return proof is not None and proof == _proof(shown)

    async def check(self, kept: Password, shown: str) -> bool:
        """Whether it is right. Raises `Overloaded`."""
        if self._waiting >= MAX_WAITING:
            raise Overloaded("too many slow passwords are being checked", retry_after_s=1.0)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            if not await loop.run_in_executor(self._threads, is_password, kept, shown):
                return False
        finally:
            self._waiting -= 1
        self._proved[kept] = _proof(shown)
        if len(self._proved) > MAX_PROVED:
            self._proved.popitem(last=False)
        return True

    def close(self) -> None:
        """What has not begun will not."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _proof(shown: str) -> bytes:
    return hashlib.sha256(shown.encode()).digest()
