"""One broker that is driven: what it is told, whose sessions are ended there, how it was found.

Nothing that matters is remembered here only: after a restart of this process or of the broker,
looking at both sides says what is to be done.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import structlog
from mooring.broker.v1 import management_pb2 as pb
from prometheus_client import Counter, Gauge, Histogram

from chassis.address_policy import AddressPolicy
from chassis.database import DATABASE_UNAVAILABLE
from chassis.errors import MooringError
from registry_service.access.decision import uuid_of_username
from registry_service.credentials import KeyRing
from registry_service.enforcement.control import DynamicSecurity
from registry_service.enforcement.dynamic_security import Command, Wanted
from registry_service.enforcement.held_store import HeldStore
from registry_service.enforcement.http_management import Kicker
from registry_service.enforcement.managed import Driver, driver_of
from registry_service.enforcement.planning import MAX_CLIENTS, Plan, plan
from registry_service.enforcement.progress import Progress
from registry_service.enforcement.store import Done, EnforcementStore, Revocation
from registry_service.enforcement.wanted import wanted_of
from registry_service.errors import TooManyClients

log = structlog.get_logger(__name__)

# Whoever is let in at the time of the revocation, and is not connected yet, escapes the first look
# at a broker that asks. It goes on being let in for as long as an answer takes, and what is
# remembered is believed (`ANSWER_S` and `STALE_S` in registry_service.access): this is longer.
LOOK_AGAIN_S = 7.0
# Whoever begins to drive a broker does not know whether there was such a second look, and looks at
# all that were done within this time. It ends sessions that began since, so it is short.
LOOK_BACK_S = 120.0
# While a plan is carried out: how often it is noted what the broker holds by now, and looked for
# revocations. These must not wait for the rest: a thousand new clients take Mosquitto 2.0 a minute.
NOTE_S = 0.05
# How soon a broker that failed is tried again.
TRY_AGAIN_S = 5.0

KICK_SECONDS = Histogram(
    "mooring_revocation_seconds",
    "How long it took to end the sessions of a batch of revocations, by broker",
    ["broker"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
KICKED = Counter("mooring_revocations_total", "Revocations that took effect", ["broker"])
IN_STEP = Gauge("mooring_broker_in_step", "1 while a driven broker is as it should be", ["broker"])
COMMANDS = Counter(
    "mooring_broker_commands_total", "Commands that brought a Mosquitto in step", ["broker"]
)


class _Interrupted(Exception):
    """A plan was left: the next attempt begins with the sessions that are to be ended."""


class DrivenBroker:
    """Times are of the running loop's clock."""

    def __init__(
        self,
        broker: pb.ManagedBroker,
        store: EnforcementStore,
        ring: KeyRing,
        *,
        drift_check_s: float,
        policy: AddressPolicy,
    ) -> None:
        """Connects to nothing yet."""
        self.broker = broker
        self._store = store
        self._held_there = HeldStore(store.engine)
        self._ring = ring
        self._drift_check_s = drift_check_s
        self._policy = policy
        self._label = str(broker.id)
        self._driver: Driver | None = None
        # What it should hold, as of the last time that it was compared with that.
        self._held: list[tuple[str, str]] | None = None
        # The clients of ours that were found there then.
        self._there: frozenset[str] = frozenset()
        self._compared_at = float("-inf")
        self._tries_again_at = float("-inf")
        # Whether the last attempt came to its end, and what it found was noted.
        self._is_known = False
        self._problem = ""
        # Whether that is about some clients only.
        self._is_partial = False
        # The first one that is yet to be looked for once more.
        self._again_from: Done | None = None
        IN_STEP.labels(self._label).set(0)

    async def attend(self, *, has_changes: bool) -> None:
        """Does what is to be done there now. `has_changes`: somebody's access has changed.

        Whatever is wrong with the broker is noted. Raises `Unavailable` for the database.
        """
        now = _now()
        if now < self._tries_again_at:
            return
        due = await self._store.due(self.broker.id)
        is_mosquitto = self.broker.management == "mosquitto"
        again = [] if is_mosquitto else await self._due_again()
        is_drift_due = is_mosquitto and now - self._compared_at >= self._drift_check_s
        is_settled = self._is_known and not (has_changes and is_mosquitto)
        if is_settled and not (due or again or is_drift_due):
            return
        is_forced = is_drift_due or not self._is_known
        self._is_known = False
        try:
            if self._driver is None:
                self._driver = driver_of(self.broker, self._policy)
            problem: str | None = ""
            if isinstance(self._driver, DynamicSecurity):
                problem = await self._keep_in_step(self._driver, due, is_forced=is_forced)
            else:
                await self._kick(self._driver, due, again)
        except _Interrupted:
            return
        except MooringError as error:
            if error.reason == DATABASE_UNAVAILABLE:
                raise
            self._tries_again_at = now + TRY_AGAIN_S
            self._is_partial = False
            await self._store.failed([one.id for one in due], error.message)
            await self._note(error.message)
            return
        if problem is not None:
            await self._note(problem)
        self._is_known = True

    async def close(self) -> None:
        """It is not driven any more."""
        IN_STEP.remove(self._label)
        if self._driver is not None and not isinstance(self._driver, DynamicSecurity):
            await self._driver.close()

    async def _due_again(self) -> list[Done]:
        """Those who are to be looked for once more, at a broker that asks."""
        again = await self._store.done_before(
            self.broker.id, self._again_from, age_s=LOOK_AGAIN_S, within_s=LOOK_BACK_S
        )
        if again:
            # However long the broker cannot be reached, these stay the next.
            self._again_from = again[0]
        return again

    async def _kick(self, driver: Kicker, due: Iterable[Revocation], again: Sequence[Done]) -> None:
        """At a broker that asks who may connect: it has refused them already."""
        begun = _now()
        by_id = {one.id: one.username for one in due}
        if by_id:
            sessions = await driver.kick(frozenset(by_id.values()))
            await self._done({key: sessions[name] for key, name in by_id.items()}, begun)
        # Nobody waits for these.
        if again:
            await driver.kick(frozenset(one.username for one in again))
            self._again_from = replace(again[-1], id=again[-1].id + 1)

    async def _keep_in_step(
        self, driver: DynamicSecurity, due: list[Revocation], *, is_forced: bool
    ) -> str | None:
        """What keeps it from being so; empty where nothing does, None where nothing was done."""
        begun = _now()
        ended = [one for one in due if one.reason != "rotated"]
        rotated = [one for one in due if one.reason == "rotated"]
        if ended:
            # This takes a millisecond; what follows looks at all clients.
            await driver.disable({one.username for one in ended})
            await self._done(_unknown(ended), begun)
        wanted = await self._wanted()
        if _held_of(wanted) == self._held and not (is_forced or due):
            return None
        problem = await self._bring_in_step(driver, wanted, frozenset(one.id for one in due))
        self._compared_at = _now()
        # A client whose password is set anew is disconnected by that.
        await self._done(_unknown(rotated), begun)
        return problem

    async def _wanted(self) -> list[Wanted]:
        """Those that the broker is to let in; of too many, those that it knows come first."""
        rows = await self._store.wanted(self.broker.id, MAX_CLIENTS, self._there)
        return wanted_of(rows, self._ring)

    async def _bring_in_step(
        self, driver: DynamicSecurity, wanted: list[Wanted], due: frozenset[int]
    ) -> str:
        """What keeps it from being so. Raises `_Interrupted` for other revocations than `due`."""
        actual = await driver.state()
        ours = frozenset(name for name, client in actual.clients.items() if client.is_ours)
        if len(wanted) > MAX_CLIENTS and ours != self._there:
            self._there = ours
            wanted = await self._wanted()
        leaving = ours.difference(one.username for one in wanted)
        uuids = [uuid for name in leaving if (uuid := uuid_of_username(name))]
        gone = await self._store.accounted_for(self.broker.id, leaving, uuids) if leaving else ()
        what = plan(wanted, actual, confirmed=gone)
        unchanged = ours.difference(what.changed, what.impossible)
        fingerprints = {one.username: one.fingerprint for one in wanted}
        is_full = any(isinstance(refusal, TooManyClients) for refusal in what.refusals)
        await self._held_there.found(
            self.broker.id,
            {name: fingerprints[name] for name in unchanged if name in fingerprints},
            takes_clients=not is_full,
        )
        if what.commands:
            await self._apply(driver, what, fingerprints, due)
            log.info(
                "a broker was brought in step",
                broker_id=self.broker.id,
                created=len(what.created),
                changed=len(what.changed),
                removed=len(what.removed),
            )
        self._is_partial = not is_full
        self._there, self._held = ours, _held_of(wanted)
        problems = [refusal.message for refusal in what.refusals]
        if what.taken:
            problems.append(f"clients that are not ours have these names: {what.taken[:5]}")
        if what.impossible:
            problems.append(
                f"{len(what.impossible)} imported devices can only be in the file that the broker"
                f" starts with, for nobody knows their passwords: {what.impossible[:5]}"
            )
        return "; ".join(problems)

    async def _apply(
        self,
        driver: DynamicSecurity,
        what: Plan,
        fingerprints: Mapping[str, str],
        due: frozenset[int],
    ) -> None:
        """Carries it out; what the broker holds by then is noted in between.

        Raises `_Interrupted` for other revocations than `due`.
        """
        progress = Progress(what)
        finished: list[str] = []
        noted_at = _now()

        async def note() -> None:
            nonlocal noted_at
            held = {name: fingerprints[name] for name in finished}
            finished.clear()
            await self._held_there.applied(self.broker.id, held)
            noted_at = _now()

        async def then(answered: Sequence[tuple[Command, bool]]) -> None:
            COMMANDS.labels(self._label).inc(len(answered))
            finished.extend(progress.take(answered))
            if _now() - noted_at >= NOTE_S:
                await note()
                if not due.issuperset(one.id for one in await self._store.due(self.broker.id)):
                    raise _Interrupted

        try:
            await driver.apply(what, then)
        finally:
            await note()

    async def _done(self, sessions: Mapping[int, int | None], begun: float) -> None:
        if not sessions:
            return
        await self._store.done(self.broker.id, sessions)
        KICK_SECONDS.labels(self._label).observe(_now() - begun)
        KICKED.labels(self._label).inc(len(sessions))

    async def _note(self, problem: str) -> None:
        """What people are told of it."""
        IN_STEP.labels(self._label).set(not problem)
        if problem and problem != self._problem:
            log.warning("a broker is not in step", broker_id=self.broker.id, problem=problem)
        self._problem = problem
        clients = None if problem or self._held is None else len(self._held)
        await self._store.note(
            self.broker.id,
            clients=clients,
            is_in_step=not problem,
            problem=problem,
            is_partial=bool(problem) and self._is_partial,
        )


def _held_of(wanted: Iterable[Wanted]) -> list[tuple[str, str]]:
    return sorted((one.username, one.fingerprint) for one in wanted)


def _unknown(revocations: Iterable[Revocation]) -> dict[int, int | None]:
    """A Mosquitto does not say how many sessions it has ended."""
    return dict.fromkeys(one.id for one in revocations)


def _now() -> float:
    return asyncio.get_running_loop().time()
