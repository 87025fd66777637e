"""Which kinds of things have changed, for everything in this gateway that shows them.

However many subscribers there are, the gateway asks the registry once at a time, and not at all
without subscribers. A subscriber gets kinds and no contents: it then reads what it shows again,
with its own rights.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import structlog
from mooring.registry.v1 import system_pb2 as pb
from prometheus_client import Counter, Gauge

from chassis.errors import MooringError, Overloaded
from chassis.trust import Access, PersonPolicy, WithinFleets, access_of
from gateway.service_clients import ServiceClients
from gateway.streams import RETRY_S
from gateway.subscription import Subscription

log = structlog.get_logger(__name__)

# Who may read each kind: as its list of resources says.
POLICIES: Mapping[str, PersonPolicy] = MappingProxyType(
    {
        "audit": Access.ADMIN,
        "broker_secrets": Access.VIEWER,
        "broker_states": WithinFleets(Access.VIEWER),
        "brokers": WithinFleets(Access.VIEWER),
        "certificates": Access.VIEWER,
        "devices": WithinFleets(Access.VIEWER),
        "enforcement": Access.VIEWER,
        "expected_devices": WithinFleets(Access.VIEWER),
        "fleets": WithinFleets(Access.VIEWER),
        "jobs": Access.VIEWER,
        "pools": WithinFleets(Access.VIEWER),
        "processes": Access.VIEWER,
        "provisioning_keys": WithinFleets(Access.VIEWER),
        "regions": Access.VIEWER,
        "registrations": WithinFleets(Access.VIEWER),
        "rollouts": WithinFleets(Access.VIEWER),
        "series": WithinFleets(Access.VIEWER),
        "server_keys": Access.ADMIN,
        "service_accounts": Access.VIEWER,
        "timelines": WithinFleets(Access.VIEWER),
        "tokens": Access.ADMIN,
    }
)
KINDS = frozenset(POLICIES)
PREFIX = "CHANGE_KIND_"

# The most subscribers of this process.
MAX_SUBSCRIBERS = 1_000
# How long the registry waits for a change before it answers without one.
WITHIN_S = 1.0
PATIENCE_S = 3.0
# The shortest time between two changes that subscribers see, and after a failed question.
PAUSE_S = 0.5
# How often every kind counts as changed for tokens that are restricted to fleets.
RESTRICTED_S = 5.0
# How many changes are remembered, so that a subscriber that was away for a short time learns only
# what it missed: at least a quarter of an hour.
REMEMBERED = 2_000

SUBSCRIBERS = Gauge("mooring_change_subscribers", "Subscribers to changes in this process")
QUESTIONS = Counter(
    "mooring_change_questions_total",
    "Questions to the registry, by result: changed, unchanged or failed",
    ["result"],
)


def readable(role: Access, *, is_restricted: bool) -> frozenset[str]:
    """The kinds that a token with this role may read; `is_restricted` is one for some fleets."""
    return frozenset(
        kind
        for kind, policy in POLICIES.items()
        if role >= access_of(policy) and (isinstance(policy, WithinFleets) or not is_restricted)
    )


class Changes:
    """Asks the registry, and tells all subscribers."""

    def __init__(self, services: ServiceClients, leaving: asyncio.Event) -> None:
        """All subscriptions end when the gateway is `leaving`. Asks nothing until there is a
        subscriber.
        """
        self._services = services
        self._leaving = leaving
        self._subscriptions: set[Subscription] = set()
        self._asking: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        # The registry's cursor. Empty: changes from now on.
        self._cursor = ""
        # Positions are of this process alone.
        self._id = secrets.token_urlsafe(9)
        self._position = 0
        # The changes after each of the last positions, the oldest first.
        self._remembered: deque[frozenset[str]] = deque(maxlen=REMEMBERED)

    @property
    def position(self) -> str:
        """Subscribers that begin here learn of every change that is not known yet."""
        return self._shown(self._position)

    def require_room(self) -> None:
        """Raises `Overloaded` if there are too many subscribers."""
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise Overloaded("too many clients follow changes", retry_after_s=RETRY_S)

    @contextmanager
    def subscribed(
        self, kinds: frozenset[str] = KINDS, *, after: str = "", is_restricted: bool = False
    ) -> Iterator[Subscription]:
        """A subscription to `kinds` until the end of the block.

        `after` is the position up to which the subscriber has seen everything. If it is empty, or
        this process does not know what changed since, all kinds count as changed: at once, or with
        the first answer of the registry.

        `is_restricted` is for tokens that are restricted to fleets. They must not learn when
        something changes elsewhere, so for them every kind counts as changed every RESTRICTED_S.
        Raises `Overloaded` if there are too many subscribers.
        """
        self.require_room()
        subscription = Subscription(
            kinds,
            frozenset() if is_restricted else self._missed(after),
            # A position tells how much has changed, in all fleets.
            "" if is_restricted else self.position,
            every_s=RESTRICTED_S if is_restricted else None,
        )
        self._subscriptions.add(subscription)
        SUBSCRIBERS.inc()
        if self._ending is None:
            self._ending = asyncio.create_task(self._end_when_leaving())
        if self._leaving.is_set():
            subscription.end()
        elif self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._keep_asking())
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            SUBSCRIBERS.dec()

    async def close(self) -> None:
        """Ends the subscriptions, and the question under way."""
        tasks = [task for task in (self._asking, self._ending) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for subscription in self._subscriptions:
            subscription.end()

    async def _end_when_leaving(self) -> None:
        await self._leaving.wait()
        for subscription in self._subscriptions:
            subscription.end()

    def _shown(self, position: int) -> str:
        return f"{self._id}.{position}"

    def _missed(self, after: str) -> frozenset[str]:
        if not self._cursor:
            # The first answer says that everything has changed. What a subscriber read before it
            # could be older.
            return frozenset()
        process, _, text = after.rpartition(".")
        if process != self._id or not (text.isascii() and text.isdigit() and len(text) < 18):
            return KINDS
        behind = self._position - int(text)
        if not 0 <= behind <= len(self._remembered):
            return KINDS
        remembered = list(self._remembered)
        return frozenset[str]().union(*remembered[len(remembered) - behind :])

    async def _keep_asking(self) -> None:
        """Asks while there are subscribers. What changes while there are none is asked later, with
        the same cursor.
        """
        was_answered = True
        while self._subscriptions and not self._leaving.is_set():
            try:
                changed = await self._ask()
            except Exception as error:
                QUESTIONS.labels("failed").inc()
                if not isinstance(error, MooringError):
                    log.exception("a question for changes failed")
                elif was_answered:
                    log.warning("it is not known what changes", reason=error.reason)
                was_answered = False
                await asyncio.sleep(PAUSE_S)
                continue
            was_answered = True
            QUESTIONS.labels("changed" if changed else "unchanged").inc()
            if changed:
                self._tell(changed)
                await asyncio.sleep(PAUSE_S)

    async def _ask(self) -> frozenset[str]:
        """The kinds that changed since the last answer. Raises what the registry raises."""
        began_without = not self._cursor
        within_ms = 0 if began_without else int(WITHIN_S * 1_000)
        answer = await self._services.registry.call(
            self._services.system.ChangesSince,
            pb.ChangesSinceRequest(cursor=self._cursor, within_ms=within_ms),
            deadline=asyncio.get_running_loop().time() + WITHIN_S + PATIENCE_S,
        )
        self._cursor = answer.cursor
        if began_without:
            return KINDS
        known = pb.ChangeKind.values()
        names = (pb.ChangeKind.Name(kind) for kind in answer.kinds if kind in known)
        return KINDS & {name.removeprefix(PREFIX).lower() for name in names}

    def _tell(self, changed: frozenset[str]) -> None:
        self._position += 1
        self._remembered.append(changed)
        position = self._shown(self._position)
        for subscription in self._subscriptions:
            subscription.note(changed, position)
