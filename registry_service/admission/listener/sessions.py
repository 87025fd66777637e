"""The owners of client ids at a broker, from the clients that this process has accepted.

A client id that names no device belongs to the first client that connects with it. A client that
connects with another's id ends that session, and at many brokers gets its subscriptions and queued
messages. So no other client is accepted with the id until the first has left, or a day has passed.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from msgspec import Struct

from registry_service.admission.listener import connections
from registry_service.admission.listener.matching import Connection
from registry_service.admission.questions import Notice

# The limit for each broker, so that one broker's client ids do not displace another's.
MAX_CLIENT_IDS = 100_000
# The limit for one user of a broker, so that it does not displace other users. Its oldest client
# ids are dropped.
MAX_OF_USER = 256
# Client ids whose connections have all ended are remembered for so long, and up to this number for
# a broker, because notices about them may still arrive.
ENDED_S = 300.0
MAX_ENDED = 10_000


class Standing(Struct, frozen=True):
    """A change of a user: whether it is connected, with the time by the broker's clock (Unix ms).
    `is_online` is None if the notice does not change it.
    """

    username: str
    is_online: bool | None
    at_ms: int


class Sessions:
    """The client ids of all brokers. Times are of the loop's clock, in s."""

    def __init__(self) -> None:
        """Starts without client ids."""
        self._of_broker: defaultdict[int, ClientIds] = defaultdict(ClientIds)

    def is_anothers(self, broker_id: int, client_id: str, username: str, now: float) -> bool:
        """Whether the client id belongs to another client."""
        return self.user_of(broker_id, client_id, now) not in ("", username)

    def user_of(self, broker_id: int, client_id: str, now: float) -> str:
        """The username that the client id belongs to; empty if it is free."""
        at_broker = self._of_broker.get(broker_id)
        return at_broker.user_of(client_id, now) if at_broker is not None else ""

    def begin(
        self, broker_id: int, client_id: str, username: str, now: float, peer: str = ""
    ) -> None:
        """Records that a client is accepted. An empty client id is not recorded, because the broker
        chooses one.
        """
        if client_id:
            self._of_broker[broker_id].begin(client_id, username, peer, now)

    def begin_again(
        self, broker_id: int, client_id: str, username: str, now: float, peer: str = ""
    ) -> bool:
        """Does the same as `begin` if the client id belongs to this client; returns whether it
        does. An empty client id belongs to every client.
        """
        if not client_id:
            return True
        at_broker = self._of_broker.get(broker_id)
        return at_broker is not None and at_broker.begin_again(client_id, username, peer, now)

    def note(self, broker_id: int, notice: Notice, now: float, now_ms: int) -> list[Standing]:
        """Applies a notice, and returns the changes of users. `now_ms` is `now` in Unix ms."""
        return self._of_broker[broker_id].note(notice, now, now_ms)

    def forget(self, usernames: Iterable[str]) -> None:
        """Forgets users whose access has changed: if it has ended, so have their sessions."""
        changed = list(usernames)
        for at_broker in self._of_broker.values():
            at_broker.forget(changed)


class ClientIds:
    """The client ids of one broker."""

    def __init__(self) -> None:
        """Starts without client ids."""
        # Client ids that have, or may have, a connection; the oldest first.
        self._open: OrderedDict[str, list[Connection]] = OrderedDict()
        self._of_user: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._ended: OrderedDict[str, tuple[list[Connection], float]] = OrderedDict()

    def user_of(self, client_id: str, now: float) -> str:
        """Does the same as `Sessions.user_of`."""
        known = self._open.get(client_id)
        return connections.owner(known, now) if known is not None else ""

    def begin(self, client_id: str, username: str, peer: str, now: float) -> None:
        """Does the same as `Sessions.begin`."""
        known = self._open.get(client_id)
        if known is None:
            known = self._reopened(client_id, now)
        before = known[:]
        if connections.record_accepted(known, username, peer, now) or client_id not in self._open:
            self._keep(client_id, known, {one.username for one in before})
        else:
            self._open.move_to_end(client_id)

    def begin_again(self, client_id: str, username: str, peer: str, now: float) -> bool:
        """Does the same as `Sessions.begin_again`."""
        known = self._open.get(client_id)
        if known is None or connections.owner(known, now) != username:
            return False
        if connections.record_accepted(known, username, peer, now):
            self._keep(client_id, known, {one.username for one in known})
        else:
            self._open.move_to_end(client_id)
        return True

    def note(self, notice: Notice, now: float, now_ms: int) -> list[Standing]:
        """Does the same as `Sessions.note`."""
        client_id = notice.client_id
        if not client_id:
            return [Standing(notice.username, notice.is_online, now_ms)]
        known = self._open.get(client_id)
        if known is None:
            known = self._reopened(client_id, now)
        users = {one.username for one in known}
        before = {username for username in users if self._is_online(username)}
        # Another connection has replaced one of these, and the notice names its user.
        before |= {one.username for one in known if one.is_replaced and notice.is_online}
        named, ended = {notice.username}, list[Connection]()
        if notice.is_online:
            connected = connections.record_connected(known, notice, now, now_ms)
            named |= {connected.username} if connected is not None else set()
        else:
            ended = connections.record_disconnected(known, notice, now, now_ms)
            named |= {one.username for one in ended}
        # The end of a replaced connection does not change the state of the connection that replaced
        # it.
        is_open = any(one.is_replaced for one in known) or (notice.is_replaced and not ended)
        self._keep(client_id, known, users)
        at_ms = min(now_ms, connections.latest_ms(known) or now_ms)
        standings = []
        for user in (before | named) - {""}:
            is_online = self._is_online(user)
            if notice.is_online and (user in named or not is_online):
                standings.append(Standing(user, is_online, at_ms))
            elif not notice.is_online:
                standings.append(Standing(user, None if is_online or is_open else False, at_ms))
        self._settle(client_id, known, now)
        return standings

    def forget(self, usernames: Iterable[str]) -> None:
        """Does the same as `Sessions.forget`."""
        for username in usernames:
            for client_id in list(self._of_user.get(username, ())):
                self._drop(client_id, username)

    def _is_online(self, username: str) -> bool:
        """Whether the user is connected, with any client id."""
        return any(
            connections.has_open_connection(self._open[client_id], username)
            for client_id in self._of_user.get(username, ())
        )

    def _keep(self, client_id: str, known: list[Connection], before: set[str]) -> None:
        """Stores the client id as the newest, and drops entries for which there is no room.
        `before`: the users with connections until now.
        """
        users = {one.username for one in known}
        for username in before - users:
            self._unlink(client_id, username)
        if not known:
            self._open.pop(client_id, None)
            return
        self._open[client_id] = known
        self._open.move_to_end(client_id)
        for username in users:
            of_user = self._of_user[username]
            of_user[client_id] = None
            if len(of_user) > MAX_OF_USER:
                self._drop(next(iter(of_user)), username)
        if len(self._open) > MAX_CLIENT_IDS:
            oldest = next(iter(self._open))
            for username in {one.username for one in self._open[oldest]}:
                self._drop(oldest, username)

    def _drop(self, client_id: str, username: str) -> None:
        """Drops the user's connections with the client id."""
        known = self._open[client_id]
        known[:] = [one for one in known if one.username != username]
        if not known:
            del self._open[client_id]
        self._unlink(client_id, username)

    def _unlink(self, client_id: str, username: str) -> None:
        of_user = self._of_user.get(username, {})
        of_user.pop(client_id, None)
        if not of_user:
            self._of_user.pop(username, None)

    def _settle(self, client_id: str, known: list[Connection], now: float) -> None:
        """Frees the client id if all of its connections have ended, and no session is kept."""
        if client_id not in self._open or any(map(connections.is_held, known)):
            return
        ended = list(known)
        for username in {one.username for one in known}:
            self._drop(client_id, username)
        self._ended[client_id] = ended, now
        self._ended.move_to_end(client_id)
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def _reopened(self, client_id: str, now: float) -> list[Connection]:
        """The stored connections of the client id, all of which have ended."""
        ended, since = self._ended.pop(client_id, ([], now))
        return ended if now - since < ENDED_S else []
