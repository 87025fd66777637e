"""Counts repeated attempts together, so that any number of them causes few lines.

The first attempt of a kind is due at once; later ones are held for a while and share a line. The
number of kinds is bounded, for each actor and in all; attempts beyond that are counted as one kind.
This module uses neither a clock nor a database.
"""

from collections import Counter
from dataclasses import dataclass, field

OVERFLOW = "TOO_MANY_TO_TELL_APART"


@dataclass(frozen=True, slots=True)
class Kind:
    """The values that the attempts of one line share. The actor is empty if it is not known."""

    actor: str
    actor_id: str
    action: str
    subject: str
    refusal: str


@dataclass(slots=True)
class Attempts:
    """The attempts of one kind. Times are of a monotonic clock, in seconds."""

    count: int
    first_at: float
    last_at: float
    # The id of the first request.
    request_id: str
    # The number of attempts from each known address, up to a bound.
    addresses: Counter[str] = field(default_factory=Counter)
    # The ticket of the first attempt, which proves the actor.
    ticket: bytes | None = None

    def join(self, other: "Attempts", max_addresses: int) -> None:
        """Adds the counts of `other`."""
        if not self.count:
            self.first_at, self.last_at = other.first_at, other.last_at
            self.request_id, self.ticket = other.request_id, other.ticket
        elif other.first_at < self.first_at:
            self.first_at, self.request_id = other.first_at, other.request_id
            self.ticket = other.ticket
        self.last_at = max(self.last_at, other.last_at)
        self.count += other.count
        for address, count in other.addresses.items():
            if address in self.addresses or len(self.addresses) < max_addresses:
                self.addresses[address] += count


@dataclass(slots=True)
class _Held:
    attempts: Attempts
    # None if no line of this kind was taken yet.
    taken_at: float | None = None


class Tally:
    """The attempts that are not written yet."""

    def __init__(
        self,
        *,
        hold_s: float = 60.0,
        kinds_of_actor: int = 20,
        actors: int = 1_000,
        addresses: int = 1_000,
    ) -> None:
        """At most 1 + `kinds_of_actor` lines are due for an actor in any `hold_s` seconds."""
        self._hold_s = hold_s
        self._kinds_of_actor = kinds_of_actor
        self._actors = actors
        self._addresses = addresses
        self._held: dict[Kind, _Held] = {}
        # The number of kinds that are held for each actor.
        self._kinds: Counter[tuple[str, str]] = Counter()

    def note(
        self,
        kind: Kind,
        now: float,
        *,
        request_id: str = "",
        address: str = "",
        ticket: bytes | None = None,
    ) -> None:
        """Counts an attempt."""
        addresses = Counter([address]) if address else Counter[str]()
        self._add(kind, Attempts(1, now, now, request_id, addresses, ticket))

    def take(self, now: float) -> dict[Kind, Attempts]:
        """Returns the lines that are due. The caller must write them, or `put_back` them."""
        due: dict[Kind, Attempts] = {}
        for kind, held in list(self._held.items()):
            if held.taken_at is not None and now - held.taken_at < self._hold_s:
                continue
            if held.attempts.count:
                due[kind] = held.attempts
                held.attempts = Attempts(0, now, now, "")
                held.taken_at = now
            else:
                self._forget(kind)
        return due

    def take_all(self) -> dict[Kind, Attempts]:
        """Returns all lines that are not written yet, due or not."""
        found = {kind: held.attempts for kind, held in self._held.items() if held.attempts.count}
        self._held.clear()
        self._kinds.clear()
        return found

    def put_back(self, taken: dict[Kind, Attempts]) -> None:
        """Puts back lines that could not be written; they are due again."""
        for kind, attempts in taken.items():
            self._add(kind, attempts)
            if kind in self._held:
                self._held[kind].taken_at = None

    def _add(self, kind: Kind, attempts: Attempts) -> None:
        kind = self._bounded_kind(kind)
        held = self._held.get(kind)
        if held is None:
            self._held[kind] = _Held(attempts)
            self._kinds[kind.actor, kind.actor_id] += 1
        else:
            held.attempts.join(attempts, self._addresses)

    def _bounded_kind(self, kind: Kind) -> Kind:
        if kind in self._held:
            return kind
        known = self._kinds[kind.actor, kind.actor_id]
        if not known and len(self._kinds) >= self._actors:
            return Kind("", "", "audit.overflow", "", OVERFLOW)
        if known >= self._kinds_of_actor:
            return Kind(kind.actor, kind.actor_id, "audit.overflow", "", OVERFLOW)
        return kind

    def _forget(self, kind: Kind) -> None:
        del self._held[kind]
        actor = (kind.actor, kind.actor_id)
        self._kinds[actor] -= 1
        if not self._kinds[actor]:
            del self._kinds[actor]
