"""Which connections of one client id stand, whatever order a broker's notices arrive in.

Notices arrive late, twice, out of order or not at all, and the nodes of a broker have clocks of
their own. So a notice is matched with the connection that it is about: by the moment at which the
broker began it, else by the client's address and port, else by the order of arrival. A notice that
names another connection ends nothing.
"""

from msgspec import Struct

from registry_service.admission.questions import Notice

# The connections of one client id that are remembered; the oldest are forgotten first.
MAX_CONNECTIONS = 12
# For brokers that say neither times nor addresses: how long after a connection was replaced the
# notice that it ended may still arrive. Later, a notice is about the connection that replaced it.
REPLACED_S = 30.0
# The clocks of a broker's nodes, and of this process, differ by less, in ms.
SKEW_MS = 10_000
# How long a client id belongs to a client that was let in with it.
MAX_AGE_S = 86_400.0
# Where a broker sends notices: how long after a client was let in that it has connected may still
# be told.
AWAITED_S = 300.0
# So many connections are awaited of a client that was let in; a broker that sends no notices, or
# asks again before it connects a client, would make them ever more.
MAX_AWAITED = 4


class Connection(Struct):
    """One connection of a client. Times are 0 where the broker did not say them."""

    username: str
    # When this process let the client in, or first heard of the connection: s, of the loop's clock.
    told_at: float
    # Whether this process let the client in.
    is_ours: bool = False
    # Whether the broker said that the client has connected, and that it has left.
    has_come: bool = False
    is_over: bool = False
    # Whether it is over because another one has the client id, of which nothing is known yet.
    is_replaced: bool = False
    # Whether the broker said that it keeps the session while the client is away: when the client
    # connected, and when it left.
    is_kept: bool = False
    is_away: bool = False
    # The client's address and port.
    peer: str = ""
    # By the broker's clock: Unix ms.
    began_at: int = 0
    ended_at: int = 0


def begin(connections: list[Connection], username: str, peer: str, now: float) -> bool:
    """Notes that this process lets the client in; whether it is a connection not known before."""
    if peer:
        for one in connections:
            if one.peer == peer and one.username == username and not one.is_over:
                one.told_at, one.is_ours = now, True
                return False
    if _are_enough(connections, username, peer):
        connections[-1].told_at = now
        return False
    _add(connections, Connection(username, now, is_ours=True, peer=peer))
    return True


def _are_enough(connections: list[Connection], username: str, peer: str) -> bool:
    """Whether the last ones are awaited of this user, and no more are to be."""
    if len(connections) < MAX_AWAITED:
        return False
    # A plain loop: this is asked at every connect, and takes half as long as `all` here.
    for one in connections[-MAX_AWAITED:]:
        if one.has_come or one.is_over or one.username != username or (peer and one.peer):
            return False
    return True


def come(
    connections: list[Connection], notice: Notice, now: float, now_ms: int
) -> Connection | None:
    """Notes that the client has connected; None where the notice does not say which client.

    A connection whose end was told before stays ended. `now_ms` is `now` in Unix ms.
    """
    one = _begun(connections, notice, now_ms - int(now * 1000))
    if one is None and notice.username:
        is_ours = any(one.is_ours and one.username == notice.username for one in connections)
        one = Connection(notice.username, now)
        one.is_over = any(_is_past(other, notice) for other in connections)
        _add(connections, one)
        one.is_ours = is_ours and not one.is_over
    if one is None:
        return None
    if one.is_over and not (one.has_come or one.is_ours):
        _put_in_order(connections, one)
    one.has_come, one.told_at = True, now
    one.username = one.username or notice.username
    one.peer = one.peer or notice.peer
    one.began_at = one.began_at or notice.began_at
    one.is_kept = notice.is_kept
    for other in connections:
        other.is_replaced = False
    return one


def leave(
    connections: list[Connection], notice: Notice, now: float, now_ms: int
) -> list[Connection]:
    """Notes that a client has left, and returns the connections that have ended.

    `now_ms` is `now` in Unix ms.
    """
    ended = _ended(connections, notice, now, now_ms)
    for one in ended:
        was_over = one.is_over
        one.is_over, one.is_away = True, notice.is_kept
        one.peer = one.peer or notice.peer
        one.began_at = one.began_at or notice.began_at
        one.ended_at = one.ended_at or notice.ended_at
        if not was_over:
            one.is_replaced = notice.is_replaced and not _is_known(connections, one)
    for one in connections:
        # The one that replaced it has ended too.
        if one.ended_at < notice.ended_at and not notice.is_replaced:
            one.is_replaced = False
    is_unnamed = not (notice.peer or notice.began_at)
    if _is_bare(notice) or (is_unnamed and notice.is_replaced):
        return ended
    if not any(_is_about(one, notice) for one in connections):
        # The notice that it began may still arrive.
        one = Connection(notice.username, now, is_over=True, is_replaced=notice.is_replaced)
        one.is_away, one.peer = notice.is_kept, notice.peer
        one.began_at, one.ended_at = notice.began_at, notice.ended_at
        _add(connections, one)
    return ended


def is_here(connections: list[Connection], username: str) -> bool:
    """Whether the user has a connection that stands."""
    return any(
        one.has_come and not one.is_over and one.username == username
        for one in connections
        if not _is_replaced(connections, one)
    )


def owner(connections: list[Connection], now: float) -> str:
    """The username that the client id belongs to; empty if it is free."""
    for one in reversed(connections):
        if not one.is_ours or not is_held(one) or now - one.told_at >= MAX_AGE_S:
            continue
        if _is_awaited(one):
            is_past = now - one.told_at > AWAITED_S and any(
                other.has_come and other.told_at >= one.told_at for other in connections
            )
        else:
            is_past = _is_replaced(connections, one)
        if not is_past:
            return one.username
    return ""


def is_held(one: Connection) -> bool:
    """Whether it stands, or the broker keeps its session for the client."""
    return not one.is_over or one.is_kept or one.is_away or one.is_replaced


def latest_ms(connections: list[Connection]) -> int:
    """The latest moment that the broker named, in Unix ms; 0 if it named none."""
    return max((max(one.began_at, one.ended_at) for one in connections), default=0)


def _put_in_order(connections: list[Connection], late: Connection) -> None:
    """Puts a connection that is over where its client was let in: first, of those awaited."""
    for slot in connections:
        if slot.is_ours and not (slot.has_come or slot.peer or slot.began_at):
            others = [one for one in connections if one is not late]
            connections[:] = [late if one is slot else one for one in others]
            late.is_ours = True
            return


def _is_replaced(connections: list[Connection], one: Connection) -> bool:
    """Whether a later connection is known: a client id has one at a time.

    Of two that began within `SKEW_MS` the clocks do not say which was first. They count as known
    in the order of the list as long as both stand.
    """
    is_after = False
    for other in connections:
        if other is one:
            is_after = True
        elif other.has_come:
            if not (other.began_at and one.began_at):
                is_later = is_after
            elif other.began_at > one.began_at + SKEW_MS:
                is_later = True
            else:
                is_later = is_after and not other.is_over and other.began_at > one.began_at
            if is_later:
                return True
    return False


def _is_known(connections: list[Connection], one: Connection) -> bool:
    """Whether the connection that took the place of this one is known, or one after it."""
    after = connections[connections.index(one) + 1 :]
    return any(other.has_come for other in after) or any(
        (other.has_come and not other.is_over) or other.ended_at > one.ended_at > 0
        for other in connections
        if other is not one
    )


def _begun(connections: list[Connection], notice: Notice, epoch_ms: int) -> Connection | None:
    """The known connection that a client's coming is about.

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
    if any(_is_past(one, notice) for one in connections):
        return None
    standing = [
        one
        for one in candidates
        if not one.is_over
        and not (one.peer and notice.peer and one.peer != notice.peer)
        and not (one.began_at and notice.began_at)
    ]
    awaited = [*filter(_is_awaited, standing)]
    for one in awaited:
        if not notice.began_at or epoch_ms + one.told_at * 1000 <= notice.began_at:
            return one
    if awaited:
        return awaited[-1]
    return standing[0] if standing and _is_bare(notice) else None


def _ended(
    connections: list[Connection], notice: Notice, now: float, now_ms: int
) -> list[Connection]:
    """The known connections that a client's leaving is about."""
    for one in reversed(connections):
        if _is_same(one, notice.began_at, notice.peer, notice.ended_at):
            return [one]
    if _is_bare(notice):
        return _oldest(connections, notice, now)
    if notice.is_replaced:
        # Another connection has the client id now.
        return []
    ended = []
    for one in connections:
        if one.is_over:
            continue
        if one.began_at:
            # It has ended, and so has a later one whose beginning was not told.
            is_named = notice.began_at or (one.peer and notice.peer)
            margin = SKEW_MS if is_named else 0
            is_past = one.began_at + margin < (notice.began_at or notice.ended_at)
        elif one.peer and notice.peer:
            is_past = False
        else:
            # Let in long before that, and the notice that it began got lost.
            told_ms = now_ms - (now - one.told_at) * 1000
            is_past = told_ms + SKEW_MS < max(notice.began_at, notice.ended_at)
        if is_past:
            ended.append(one)
    return ended


def _is_past(one: Connection, notice: Notice) -> bool:
    """Whether the end of a connection was told that is named by nothing, after this began."""
    is_unnamed = not (one.has_come or one.peer or one.began_at or notice.peer)
    return one.is_over and is_unnamed and 0 < notice.began_at < one.ended_at


def _is_about(one: Connection, notice: Notice) -> bool:
    """Whether what the notice says is remembered with this connection."""
    if notice.peer or notice.began_at:
        return _is_same(one, notice.began_at, notice.peer, notice.ended_at)
    is_mark = one.is_over and not (one.is_ours or one.has_come)
    return is_mark and one.ended_at == notice.ended_at


def _add(connections: list[Connection], one: Connection) -> None:
    """Forgets one that is over first where there are too many."""
    if len(connections) >= MAX_CONNECTIONS:
        last = min(connections, key=lambda other: (not other.is_over, other.has_come))
        connections[:] = [other for other in connections if other is not last]
    connections.append(one)


def _is_awaited(one: Connection) -> bool:
    """Whether its client was let in, and nothing was told of it since."""
    return not (one.has_come or one.is_over)


def _oldest(connections: list[Connection], notice: Notice, now: float) -> list[Connection]:
    """The first connection whose end is yet to be told, for a notice that names none.

    A session that was kept for a client that is away ends before a connection does.
    """
    standing, kept = [], []
    for index, one in enumerate(connections):
        following = connections[index + 1] if index + 1 < len(connections) else None
        is_replaced = _is_replaced(connections, one)
        if is_replaced and following is not None and now - following.told_at >= REPLACED_S:
            continue
        if not one.is_over and (is_replaced or not notice.is_replaced):
            standing.append(one)
        elif one.is_away and not notice.is_kept:
            kept.append(one)
    return kept or standing[:1]


def _is_same(one: Connection, began_at: int, peer: str, at: int) -> bool:
    """Whether a notice names this connection; `at` is the moment that it tells of."""
    if one.peer and peer and one.peer != peer:
        return False
    if one.began_at and began_at:
        return one.began_at == began_at
    # A port is used again later.
    is_before = bool(at and one.began_at > at) or bool(began_at and 0 < one.ended_at < began_at)
    return bool(peer) and one.peer == peer and not is_before


def _is_bare(notice: Notice) -> bool:
    """Whether it says nothing to tell connections apart by."""
    return not (notice.peer or notice.began_at or notice.ended_at)
