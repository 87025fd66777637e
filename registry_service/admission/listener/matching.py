"""Finds the connection of a client id that a broker's notice is about: by the time at which the
connection began at the broker, else by the client's address and port, else by the order of arrival.
"""

from msgspec import Struct

from registry_service.admission.questions import Notice

# For brokers that send neither times nor addresses: how long after a connection was replaced the
# notice of its end may still arrive. A later notice is about the connection that replaced it.
REPLACED_S = 30.0
# The largest difference, in ms, between the clocks of a broker's nodes and of this process.
SKEW_MS = 10_000


class Connection(Struct):
    """One connection of a client. Times are 0 if the broker did not send them."""

    username: str
    # When this process accepted the client, or got the first notice of the connection: s, of the
    # loop's clock.
    updated_at: float
    # Whether this process accepted the client.
    was_accepted: bool = False
    # Whether the broker reported that the client has connected, and that it has disconnected.
    has_connected: bool = False
    has_ended: bool = False
    # Whether it has ended because another connection took over the client id, and no notice about
    # that connection has arrived yet.
    is_replaced: bool = False
    # Whether the broker reported that it keeps the session while the client is away: at the
    # beginning, and at the end.
    is_kept: bool = False
    is_away: bool = False
    # The client's address and port.
    peer: str = ""
    # The time by the broker's clock, in Unix ms.
    began_at: int = 0
    ended_at: int = 0


def is_replaced(connections: list[Connection], one: Connection) -> bool:
    """Whether a later connection is known: a client id has one connection at a time.

    If two began within `SKEW_MS`, the clocks do not show which was first. Then the order of the
    list decides, as long as both are open.
    """
    is_after = False
    for other in connections:
        if other is one:
            is_after = True
        elif other.has_connected:
            if not (other.began_at and one.began_at):
                is_later = is_after
            elif other.began_at > one.began_at + SKEW_MS:
                is_later = True
            else:
                is_later = is_after and not other.has_ended and other.began_at > one.began_at
            if is_later:
                return True
    return False


def is_awaited(one: Connection) -> bool:
    """Whether its client was accepted, and no notice about it has arrived since."""
    return not (one.has_connected or one.has_ended)


def begun(
    connections: list[Connection], notice: Notice, epoch_ms: int, *, is_timely: bool
) -> Connection | None:
    """The known connection that a notice of a beginning is about.

    `epoch_ms` is the moment, in Unix ms, at which the loop's clock was 0.
    """
    candidates = [
        one
        for one in reversed(connections)
        if not (one.username and notice.username and one.username != notice.username)
    ]
    for one in candidates:
        if _is_same(one, notice.began_at, notice.peer, notice.began_at):
            return one
    if any(is_past(one, notice) for one in connections):
        return None
    standing = [
        one
        for one in candidates
        if not one.has_ended
        and not (one.peer and notice.peer and one.peer != notice.peer)
        and not (one.began_at and notice.began_at)
    ]
    awaited = [*filter(is_awaited, standing)]
    # A client is accepted before its connection begins, so the first accepted connection fits. If
    # the broker's clock is a little behind, the last one may be meant. If the clock is wrong, times
    # prove nothing.
    for order, margin in ((awaited, 0), (awaited[::-1], SKEW_MS)):
        for one in order:
            if not notice.began_at or epoch_ms + one.updated_at * 1000 <= notice.began_at + margin:
                return one
    if awaited and not is_timely:
        return awaited[-1]
    return standing[0] if standing and is_bare(notice) else None


def ended(
    connections: list[Connection], notice: Notice, now: float, now_ms: int
) -> list[Connection]:
    """The known connections that a notice of an end is about."""
    for one in reversed(connections):
        if _is_same(one, notice.began_at, notice.peer, notice.ended_at):
            return [one]
    if is_bare(notice):
        return _oldest(connections, notice, now)
    if notice.is_replaced:
        # The connection that ended is not known, and another has the client id now.
        return []
    ended = []
    for one in connections:
        if one.has_ended:
            continue
        if one.began_at:
            # A later connection has ended, so this earlier one has ended too.
            is_named = notice.began_at or (one.peer and notice.peer)
            margin = SKEW_MS if is_named else 0
            is_past = one.began_at + margin < (notice.began_at or notice.ended_at)
        elif one.peer and notice.peer:
            is_past = False
        else:
            # It was accepted long before, and the notice that it began was lost.
            told_ms = now_ms - (now - one.updated_at) * 1000
            is_past = told_ms + SKEW_MS < max(notice.began_at, notice.ended_at)
        if is_past:
            ended.append(one)
    return ended


def is_past(one: Connection, notice: Notice) -> bool:
    """Whether `one` was recorded from a notice of an end that names no connection, and `notice` is
    about a connection that began before that end.
    """
    is_unnamed = not (one.has_connected or one.peer or one.began_at or notice.peer)
    return one.has_ended and is_unnamed and 0 < notice.began_at < one.ended_at


def is_about(one: Connection, notice: Notice) -> bool:
    """Whether the notice was recorded with this connection."""
    if notice.peer or notice.began_at:
        return _is_same(one, notice.began_at, notice.peer, notice.ended_at)
    is_mark = one.has_ended and not (one.was_accepted or one.has_connected)
    return is_mark and one.ended_at == notice.ended_at


def _oldest(connections: list[Connection], notice: Notice, now: float) -> list[Connection]:
    """The connection that a notice ends which names none: the first whose end was not reported yet.
    If the broker keeps a session without a connection, that session ends instead.
    """
    standing, kept = [], []
    for index, one in enumerate(connections):
        following = connections[index + 1] if index + 1 < len(connections) else None
        has_follower = is_replaced(connections, one)
        if has_follower and following is not None and now - following.updated_at >= REPLACED_S:
            continue
        if not one.has_ended and (has_follower or not notice.is_replaced):
            standing.append(one)
        elif one.is_away and not notice.is_kept:
            kept.append(one)
    return kept or standing[:1]


def _is_same(one: Connection, began_at: int, peer: str, at: int) -> bool:
    """Whether a notice names this connection; `at` is the time in the notice."""
    if one.peer and peer and one.peer != peer:
        return False
    if one.began_at and began_at:
        return one.began_at == began_at
    # A later connection may use the same port.
    is_before = bool(at and one.began_at > at) or bool(began_at and 0 < one.ended_at < began_at)
    return bool(peer) and one.peer == peer and not is_before


def is_bare(notice: Notice) -> bool:
    """Whether the notice has nothing that distinguishes connections."""
    return not (notice.peer or notice.began_at or notice.ended_at)
