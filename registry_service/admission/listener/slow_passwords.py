"""Checks passwords with slow hashes, which some imported devices have, in threads.

Brokers take turns, and so do the usernames of a broker, so that a client that guesses delays
another for at most the time of one hash. Results are cached under a quick hash, for as long as the
slow hash is the same.
"""

import asyncio
import hashlib
import os
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor

import structlog

from chassis.errors import Overloaded
from registry_service.passwords import Password, is_password

log = structlog.get_logger(__name__)

# The number of threads. One core is left for all other work.
AT_ONCE = max(1, min(4, (os.cpu_count() or 2) - 1))
# Limits of waiting checks for one username, for one broker and in all. A hash takes a quarter of a
# second at most, and no broker waits longer than some seconds.
MAX_OF_USER = 2
MAX_OF_BROKER = 32
MAX_WAITING = 64
# How many wrong passwords of one username are computed within WRONG_S.
MAX_WRONG = 30
WRONG_S = 60.0
MAX_REMEMBERED = 10_000

# A username at a broker; and a slow hash with the quick hash of the password that was sent.
User = tuple[int, str]
Key = tuple[Password, bytes]


class SlowPasswords:
    """Checks slow passwords. Use it in one event loop only."""

    def __init__(self) -> None:
        """Starts with an empty cache."""
        self._loop = asyncio.get_running_loop()
        # Separate threads, because a thread continues after its client has stopped waiting.
        self._threads = ThreadPoolExecutor(AT_ONCE, "slow-password")
        self._running = 0
        # Waiting checks by broker and by username, both in the order in which they come next.
        self._waiting: OrderedDict[int, OrderedDict[str, deque[asyncio.Future[None]]]]
        self._waiting = OrderedDict()
        self._of_user: dict[User, int] = {}
        self._of_broker: dict[int, int] = {}
        self._wrong: OrderedDict[User, tuple[float, int]] = OrderedDict()
        # Separate caches, so that guesses do not displace right passwords.
        self._right: OrderedDict[Key, None] = OrderedDict()
        self._guessed: OrderedDict[Key, None] = OrderedDict()

    def known(self, kept: Password, shown: str) -> bool | None:
        """The cached result; None if the password has not been checked."""
        key = kept, _proof(shown)
        if key in self._right:
            return True
        return False if key in self._guessed else None

    async def check(self, broker_id: int, username: str, kept: Password, shown: str) -> bool | None:
        """Whether the password is right; None if the username has too many attempts. Raises
        `Overloaded` if its broker, or all brokers together, have too many.
        """
        user, key = (broker_id, username), (kept, _proof(shown))
        if self._is_limited(user):
            return None
        if (
            self._of_broker.get(broker_id, 0) >= MAX_OF_BROKER
            or sum(self._of_broker.values()) >= MAX_WAITING
        ):
            raise Overloaded("too many slow passwords are being checked", retry_after_s=1.0)
        self._count(user, 1)
        try:
            await self._turn(user)
            try:
                # Another request with the same password may have been computed meanwhile.
                is_right = self.known(kept, shown)
                if is_right is None:
                    is_right = await self._computed(kept, shown)
                    self._remember(user, key, is_right=is_right)
            finally:
                self._running -= 1
                self._next()
        finally:
            self._count(user, -1)
        return is_right

    def close(self) -> None:
        """Cancels checks that have not started."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _is_limited(self, user: User) -> bool:
        since, wrong = self._wrong.get(user, (0.0, 0))
        is_guessing = wrong >= MAX_WRONG and self._loop.time() - since < WRONG_S
        return is_guessing or self._of_user.get(user, 0) >= MAX_OF_USER

    def _count(self, user: User, change: int) -> None:
        broker_id = user[0]
        of_user = self._of_user.get(user, 0) + change
        of_broker = self._of_broker.get(broker_id, 0) + change
        self._of_user[user], self._of_broker[broker_id] = of_user, of_broker
        if not of_user:
            del self._of_user[user]
        if not of_broker:
            del self._of_broker[broker_id]

    async def _turn(self, user: User) -> None:
        """Waits for a check. If the last waiting client leaves, the check is removed."""
        if self._running < AT_ONCE and not self._waiting:
            self._running += 1
            return
        turn = self._loop.create_future()
        broker_id, username = user
        of_broker = self._waiting.setdefault(broker_id, OrderedDict())
        of_broker.setdefault(username, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # The check may have been allowed to start at this moment.
            if turn.done() and not turn.cancelled():
                self._running -= 1
                self._next()
            raise

    def _next(self) -> None:
        """Starts waiting checks while there are free threads."""
        while self._running < AT_ONCE and self._waiting:
            broker_id, of_broker = self._waiting.popitem(last=False)
            username, turns = of_broker.popitem(last=False)
            turn = turns.popleft()
            # The broker and the username go to the end of their queues.
            if turns:
                of_broker[username] = turns
            if of_broker:
                self._waiting[broker_id] = of_broker
            if not turn.done():
                self._running += 1
                turn.set_result(None)

    async def _computed(self, kept: Password, shown: str) -> bool:
        try:
            return await self._loop.run_in_executor(self._threads, is_password, kept, shown)
        except Exception as error:  # noqa: BLE001 - the library may raise any
            # The hash was imported before imports checked hashes strictly. No password matches it.
            log.warning(
                "a password hash cannot be verified: import the device anew",
                algorithm=kept.algorithm,
                error=type(error).__name__,
            )
            return False

    def _remember(self, user: User, key: Key, *, is_right: bool) -> None:
        known = self._right if is_right else self._guessed
        known[key] = None
        if len(known) > MAX_REMEMBERED:
            known.popitem(last=False)
        if is_right:
            self._wrong.pop(user, None)
            return
        now = self._loop.time()
        since, wrong = self._wrong.pop(user, (now, 0))
        self._wrong[user] = (since, wrong + 1) if now - since < WRONG_S else (now, 1)
        if len(self._wrong) > MAX_REMEMBERED:
            self._wrong.popitem(last=False)


def _proof(shown: str) -> bytes:
    return hashlib.sha256(shown.encode()).digest()
