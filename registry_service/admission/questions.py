"""The questions of brokers about clients, and the verdicts: the same for every dialect.

Texts are as the client sent them, and hold no half of a surrogate pair. Usernames, passwords and
client ids are bounded and hold no NUL (`dialects/asked.py`). Topics may still be malformed: no
filter matches or covers them (`topics.py`).
"""

from collections.abc import Sequence

from msgspec import Struct


class Connect(Struct, frozen=True):
    """Whether a client may connect with this login and client id."""

    username: str
    password: str
    client_id: str
    # The client's address and port, if the broker also sends them with its notices.
    peer: str = ""
    # The client's address alone, if the broker sends it.
    address: str = ""

    def __repr__(self) -> str:
        """Shows no password."""
        return f"Connect({self.username!r}, …, {self.client_id!r})"


class Publish(Struct, frozen=True):
    """Whether a client may publish to a topic."""

    username: str
    client_id: str
    topic: str


class Subscribe(Struct, frozen=True):
    """Whether a client may subscribe.

    `topic_filter` is the filter that messages must match. A dialect whose broker supports shared
    subscriptions has removed `$share/<name>/`. Removing it twice would allow too much.
    """

    username: str
    client_id: str
    topic_filter: str


class Receive(Struct, frozen=True):
    """Whether a message may be delivered to a client that has subscribed."""

    username: str
    client_id: str
    topic: str


class Use(Struct, frozen=True):
    """Whether a client is admitted at all. `client_id` is empty if the broker does not send it."""

    username: str
    client_id: str


Question = Connect | Publish | Subscribe | Receive | Use


class Notice(Struct, frozen=True):
    """A client has connected or disconnected.

    `username` is empty if the broker sends only the client id. `is_kept`: whether the broker keeps
    the session while the client is away, if it reports that. The fields that distinguish
    connections of one client id are empty, or 0, if the broker does not send them; times are Unix
    ms.
    """

    username: str
    client_id: str
    is_online: bool
    is_kept: bool = False
    # For the end of a connection: whether another connection with this client id replaced it.
    is_replaced: bool = False
    # The client's address and port.
    peer: str = ""
    # When the connection began, and when it ended.
    began_at: int = 0
    ended_at: int = 0


class Grants(Struct, frozen=True):
    """The topic filters that a session may publish and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


class Verdict(Struct, frozen=True):
    """The answer to one question.

    `reason` is UPPER_SNAKE, for logs and for brokers that can show it; empty if allowed. `grants`
    and `expires_at` (Unix seconds) belong to a Connect that is allowed.
    """

    is_allowed: bool
    reason: str = ""
    grants: Grants | None = None
    expires_at: int | None = None


# The verdict on a request that the dialect cannot read.
UNREADABLE = Verdict(is_allowed=False, reason="UNREADABLE")


def is_allowed(verdicts: Sequence[Verdict]) -> bool:
    """Whether all verdicts allow; False without any."""
    return bool(verdicts) and all(verdict.is_allowed for verdict in verdicts)
