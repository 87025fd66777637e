"""The open connections of one client id, from a broker's notices in any order. Notices may arrive
late, twice, out of order or not at all, and each node of a broker has its own clock. So each notice
is matched with the connection that it is about (matching.py). A notice about another connection
ends nothing.
"""

from registry_service.admission.listener.matching import (
    Connection,
    begun,
    ended,
    is_about,
    is_awaited,
    is_bare,
    is_past,
    is_replaced,
)
from registry_service.admission.questions import Notice

# How many connections of one client id are remembered; the oldest are dropped first.
MAX_CONNECTIONS = 12
# How long a client id belongs to a client that was accepted with it.
MAX_AGE_S = 86_400.0
# For brokers that send notices: how long after a client was accepted the notice of its connection
# may arrive.
AWAITED_S = 300.0
# If a notice's time differs from this process's clock by more, in ms, the broker's clock may be
# wrong. Then the order of arrival decides.
TIMELY_MS = 300_000
# How many accepted connections of a client may be without a notice. Without this limit, their
# number would grow for ever at a broker that sends no notices, or that asks again before it
# connects a client.
MAX_AWAITED = 4


def record_accepted(connections: list[Connection], username: str, peer: str, now: float) -> bool:
    """Records that this process accepts the client; returns whether the connection is a new one."""
    if peer:
        for one in connections:
            if one.peer == peer and one.username == username and not one.has_ended:
                one.updated_at, one.was_accepted = now, True
                return False
    if _are_enough(connections, username, peer):
        connections[-1].updated_at = now
        return False
    _add(connections, Connection(username, now, was_accepted=True, peer=peer))
    return True


def _are_enough(connections: list[Connection], username: str, peer: str) -> bool:
    """Whether this user has MAX_AWAITED connections without a notice, so that no more are added."""
    if len(connections) < MAX_AWAITED:
        return False
    # Every connect runs this loop, which takes half as long as `all`.
    for one in connections[-MAX_AWAITED:]:
        if one.has_connected or one.has_ended or one.username != username or (peer and one.peer):
            return False
    return True


def record_connected(
    connections: list[Connection], notice: Notice, now: float, now_ms: int
) -> Connection | None:
    """Records that the client has connected; None if the notice does not name the client. A
    connection whose end was reported before stays ended. `now_ms` is `now` in Unix ms.
    """
    epoch_ms = now_ms - int(now * 1000)
    # If not, the notice is late, or the broker's clock is wrong.
    is_timely = abs(now_ms - notice.began_at) <= TIMELY_MS
    one = begun(connections, notice, epoch_ms, is_timely=is_timely)
    if one is None and notice.username:
        was_accepted = any(
            one.was_accepted and one.username == notice.username for one in connections
        )
        one = Connection(notice.username, now)
        one.has_ended = any(is_past(other, notice) for other in connections)
        _add(connections, one)
        one.was_accepted = was_accepted and not one.has_ended
    if one is None:
        return None
    if one.has_ended and not (one.has_connected or one.was_accepted):
        one.began_at = one.began_at or notice.began_at
        _put_in_order(connections, one, epoch_ms, is_timely=is_timely)
    one.has_connected, one.updated_at = True, now
    one.username = one.username or notice.username
    one.peer = one.peer or notice.peer
    one.began_at = one.began_at or notice.began_at
    one.is_kept = notice.is_kept
    for other in connections:
        other.is_replaced = False
    return one


def record_disconnected(
    connections: list[Connection], notice: Notice, now: float, now_ms: int
) -> list[Connection]:
    """Records that a client has disconnected, and returns the connections that have ended.

    `now_ms` is `now` in Unix ms.
    """
    over = ended(connections, notice, now, now_ms)
    for one in over:
        had_ended = one.has_ended
        one.has_ended, one.is_away = True, notice.is_kept
        one.peer = one.peer or notice.peer
        one.began_at = one.began_at or notice.began_at
        one.ended_at = one.ended_at or notice.ended_at
        if not had_ended:
            one.is_replaced = notice.is_replaced and not _is_known(connections, one)
    for one in connections:
        # The notice is about the connection that replaced this one, and that has ended too.
        if one.ended_at < notice.ended_at and not notice.is_replaced:
            one.is_replaced = False
    is_unnamed = not (notice.peer or notice.began_at)
    if is_bare(notice) or (is_unnamed and notice.is_replaced):
        return over
    if not any(is_about(one, notice) for one in connections):
        # The notice that this connection began may still arrive.
        one = Connection(notice.username, now, has_ended=True, is_replaced=notice.is_replaced)
        one.is_away, one.peer = notice.is_kept, notice.peer
        one.began_at, one.ended_at = notice.began_at, notice.ended_at
        _add(connections, one)
    return over


def has_open_connection(connections: list[Connection], username: str) -> bool:
    """Whether the user has an open connection."""
    return any(
        one.has_connected and not one.has_ended and one.username == username
        for one in connections
        if not is_replaced(connections, one)
    )


def owner(connections: list[Connection], now: float) -> str:
    """The username that the client id belongs to; empty if it is free."""
    for one in reversed(connections):
        if not one.was_accepted or not is_held(one) or now - one.updated_at >= MAX_AGE_S:
            continue
        if is_awaited(one):
            is_past = now - one.updated_at > AWAITED_S and any(
                other.has_connected and other.updated_at >= one.updated_at for other in connections
            )
        else:
            is_past = is_replaced(connections, one)
        if not is_past:
            return one.username
    return ""


def is_held(one: Connection) -> bool:
    """Whether the connection is open, or the broker keeps its session for the client."""
    return not one.has_ended or one.is_kept or one.is_away or one.is_replaced


def latest_ms(connections: list[Connection]) -> int:
    """The latest time in the broker's notices, in Unix ms; 0 without any."""
    return max((max(one.began_at, one.ended_at) for one in connections), default=0)


def _put_in_order(
    connections: list[Connection], late: Connection, epoch_ms: int, *, is_timely: bool
) -> None:
    """Replaces an accepted connection without a notice by `late`, a connection that has ended and
    may be the same one. It replaces the first that was accepted before `late` began; if the
    notice's time is not reliable, the first.
    """
    latest_ms = late.began_at or late.ended_at
    for slot in connections:
        if not slot.was_accepted or slot.has_connected or slot.peer or slot.began_at:
            continue
        if is_timely and latest_ms and epoch_ms + slot.updated_at * 1000 > latest_ms:
            continue
        others = [one for one in connections if one is not late]
        connections[:] = [late if one is slot else one for one in others]
        late.was_accepted = True
        return


def _is_known(connections: list[Connection], one: Connection) -> bool:
    """Whether the connection that replaced this one, or a later one, is known."""
    after = connections[connections.index(one) + 1 :]
    return any(other.has_connected for other in after) or any(
        (other.has_connected and not other.has_ended) or other.ended_at > one.ended_at > 0
        for other in connections
        if other is not one
    )


def _add(connections: list[Connection], one: Connection) -> None:
    """Adds a connection. If there are too many, drops another, preferably one that has ended."""
    if len(connections) >= MAX_CONNECTIONS:
        last = min(connections, key=lambda other: (not other.has_ended, other.has_connected))
        connections[:] = [other for other in connections if other is not last]
    connections.append(one)
