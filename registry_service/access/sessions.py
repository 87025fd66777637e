"""Which client id is whose, as far as this process has let clients in.

A client id that is no device's name is anybody's who comes first. Whoever connects with somebody
else's ends that session, and at many brokers is given its subscriptions and what waits for it: so
until the first has left, or a day has passed, nobody else is let in with it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

MAX_SESSIONS = 100_000
MAX_AGE_S = 86_400.0

# The broker and the client id.
Key: TypeAlias = tuple[int, str]


class _Session(Struct):
    username: str
    since: float
    # Whether the broker keeps it for a client that is away.
    is_kept: bool = False


class Sessions:
    """By broker and client id; the oldest are forgotten first. Times are of one clock, in s."""

    def __init__(self) -> None:
        """Knows of none."""
        self._sessions: OrderedDict[Key, _Session] = OrderedDict()
        self._of_user: defaultdict[str, set[Key]] = defaultdict(set)

    def is_anothers(self, broker_id: int, client_id: str, username: str, now: float) -> bool:
        """Whether somebody else was let in with it."""
        return self.user_of(broker_id, client_id, now) not in ("", username)

    def user_of(self, broker_id: int, client_id: str, now: float) -> str:
        """The username that it was let in with last; empty where nobody knows."""
        session = self._sessions.get((broker_id, client_id))
        return session.username if session and now - session.since < MAX_AGE_S else ""

    def begin(self, broker_id: int, client_id: str, username: str, now: float) -> None:
        """A client is let in. An empty client id is none: the broker makes one up."""
        if not client_id:
            return
        key = broker_id, client_id
        before = self._sessions.get(key)
        if before is not None and before.username == username:
            before.since = now
        else:
            self._drop(key)
            self._sessions[key] = _Session(username, now)
            self._of_user[username].add(key)
        self._sessions.move_to_end(key)
        if len(self._sessions) > MAX_SESSIONS:
            self._drop(next(iter(self._sessions)))

    def come(self, broker_id: int, client_id: str, *, is_kept: bool) -> None:
        """The broker says that it has connected, and whether its session outlives that."""
        session = self._sessions.get((broker_id, client_id))
        if session is not None:
            session.is_kept = is_kept

    def leave(self, broker_id: int, client_id: str, *, is_kept: bool) -> None:
        """It has left. What the broker keeps for it is nobody else's."""
        session = self._sessions.get((broker_id, client_id))
        if session is not None and not is_kept and not session.is_kept:
            self._drop((broker_id, client_id))

    def forget(self, usernames: Iterable[str]) -> None:
        """Their access has changed: if it has ended, so have their sessions."""
        for username in usernames:
            for key in list(self._of_user.get(username, ())):
                self._drop(key)

    def _drop(self, key: Key) -> None:
        session = self._sessions.pop(key, None)
        if session is None:
            return
        self._of_user[session.username].discard(key)
        if not self._of_user[session.username]:
            del self._of_user[session.username]
