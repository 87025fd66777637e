"""Which client id is whose, as far as this process has let clients in.

A client id that is no device's name is anybody's who comes first. Whoever connects with somebody
else's ends that session, and at many brokers is given its subscriptions and what waits for it: so
until the first has left, or a day has passed, nobody else is let in with it.
"""

from collections import OrderedDict

MAX_SESSIONS = 100_000
MAX_AGE_S = 86_400.0


class Sessions:
    """By broker and client id; the oldest are forgotten first. Times are of one clock, in s."""

    def __init__(self) -> None:
        """Knows of none."""
        self._users: OrderedDict[tuple[int, str], tuple[str, float]] = OrderedDict()

    def is_anothers(self, broker_id: int, client_id: str, username: str, now: float) -> bool:
        """Whether somebody else was let in with it."""
        return self.user_of(broker_id, client_id, now) not in ("", username)

    def user_of(self, broker_id: int, client_id: str, now: float) -> str:
        """The username that it was let in with last; empty where nobody knows."""
        username, since = self._users.get((broker_id, client_id), ("", now))
        return username if now - since < MAX_AGE_S else ""

    def begin(self, broker_id: int, client_id: str, username: str, now: float) -> None:
        """A client is let in. An empty client id is none: the broker makes one up."""
        if not client_id:
            return
        self._users[broker_id, client_id] = username, now
        self._users.move_to_end((broker_id, client_id))
        if len(self._users) > MAX_SESSIONS:
            self._users.popitem(last=False)

    def end(self, broker_id: int, client_id: str) -> None:
        """It has left."""
        self._users.pop((broker_id, client_id), None)
