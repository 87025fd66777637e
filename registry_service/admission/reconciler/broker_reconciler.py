"""One managed broker: keeps its clients in step, ends sessions, and records its state.

No necessary state is only in this process. After a restart of the process or of the broker, the
database and the broker are compared again.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import structlog
from mooring.broker.v1 import management_pb2 as pb
from prometheus_client import Counter, Gauge, Histogram

from chassis.address_policy import AddressPolicy
from chassis.database_failures import DATABASE_UNAVAILABLE
from chassis.errors import MooringError
from registry_service.admission.decision import uuid_of_username
from registry_service.admission.reconciler.dynamic_security import Command, Wanted
from registry_service.admission.reconciler.held_store import HeldStore
from registry_service.admission.reconciler.http_management import Kicker
from registry_service.admission.reconciler.managed import Driver, driver_of
from registry_service.admission.reconciler.mosquitto_client import DynamicSecurity
from registry_service.admission.reconciler.planning import MAX_CLIENTS, Plan, plan
from registry_service.admission.reconciler.progress import Progress
from registry_service.admission.reconciler.store import Done, EnforcementStore, Revocation
from registry_service.admission.reconciler.wanted import wanted_of
from registry_service.credentials import KeyRing
from registry_service.errors import TooManyClients

log = structlog.get_logger(__name__)

# At a broker that asks Mooring, a client that was accepted just before its revocation may not be
# listed yet when sessions are ended. The latest acceptance is possible after the time of an answer
# and of the cache (`ANSWER_S` and `STALE_S` in registry_service.access). After the longer time
# below, the sessions are ended again.
LOOK_AGAIN_S = 7.0
# After a restart it is not known whether this second time was done. So it is repeated for the
# revocations of the time below. That also ends sessions that have begun since, so the time is
# short.
LOOK_BACK_S = 120.0
# While a plan is carried out: how often progress is recorded and revocations are read. Revocations
# must not wait for the plan: a thousand new clients take Mosquitto 2.0 a minute.
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
IN_STEP = Gauge("mooring_broker_in_step", "1 while a managed broker is in step", ["broker"])
COMMANDS = Counter(
    "mooring_broker_commands_total", "Commands that brought a Mosquitto in step", ["broker"]
)


class _Interrupted(Exception):
    """The plan was interrupted, so that the next attempt ends sessions first."""


class BrokerReconciler:
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
        """Makes no connection yet."""
        self.broker = broker
        self._store = store
        self._held_there = HeldStore(store.engine)
        self._ring = ring
        self._drift_check_s = drift_check_s
        self._policy = policy
        self._label = str(broker.id)
        self._driver: Driver | None = None
        # The clients that it should hold, as of the last comparison.
        self._held: list[tuple[str, str]] | None = None
        # The clients of Mooring that it held at the last comparison.
        self._there: frozenset[str] = frozenset()
        self._compared_at = float("-inf")
        self._tries_again_at = float("-inf")
        # Whether the last attempt was completed, and its result recorded.
        self._is_known = False
        self._problem = ""
        # Whether the problem concerns only some clients.
        self._is_partial = False
        # The first revocation whose sessions are to be ended a second time.
        self._again_from: Done | None = None
        IN_STEP.labels(self._label).set(0)

    async def reconcile(self, *, has_changes: bool) -> None:
        """Ends sessions and keeps the broker in step. `has_changes`: some access has changed.

        Records faults of the broker. Raises `Unavailable` if the database is not available.
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
        """Closes connections. Call it when the broker is no longer managed."""
        IN_STEP.remove(self._label)
        if self._driver is not None and not isinstance(self._driver, DynamicSecurity):
            await self._driver.close()

    async def _due_again(self) -> list[Done]:
        """The revocations whose sessions are to be ended a second time, at a broker that asks."""
        again = await self._store.done_before(
            self.broker.id, self._again_from, age_s=LOOK_AGAIN_S, within_s=LOOK_BACK_S
        )
        if again:
            # If the broker cannot be reached, these remain the next ones, for however long.
            self._again_from = again[0]
        return again

    async def _kick(self, driver: Kicker, due: Iterable[Revocation], again: Sequence[Done]) -> None:
        """Ends sessions at a broker that asks Mooring, and so refuses these clients already."""
        begun = _now()
        by_id = {one.id: one.username for one in due}
        if by_id:
            sessions = await driver.kick(frozenset(by_id.values()))
            await self._done({key: sessions[name] for key, name in by_id.items()}, begun)
        # No caller waits for the second time, so it comes last.
        if again:
            await driver.kick(frozenset(one.username for one in again))
            self._again_from = replace(again[-1], id=again[-1].id + 1)

    async def _keep_in_step(
        self, driver: DynamicSecurity, due: list[Revocation], *, is_forced: bool
    ) -> str | None:
        """Returns the problem, or an empty string; None if there was nothing to do."""
        begun = _now()
        ended = [one for one in due if one.reason != "rotated"]
        rotated = [one for one in due if one.reason == "rotated"]
        if ended:
            # First disable these clients, which takes a millisecond. The comparison below reads all
            # clients.
            await driver.disable({one.username for one in ended})
            await self._done(_unknown(ended), begun)
        wanted = await self._wanted()
        if _held_of(wanted) == self._held and not (is_forced or due):
            return None
        problem = await self._bring_in_step(driver, wanted, frozenset(one.id for one in due))
        self._compared_at = _now()
        # Setting a client's password has disconnected it.
        await self._done(_unknown(rotated), begun)
        return problem

    async def _wanted(self) -> list[Wanted]:
        """The clients that the broker is to hold; if too many, those that it holds come first."""
        rows = await self._store.wanted(self.broker.id, MAX_CLIENTS, self._there)
        return wanted_of(rows, self._ring)

    async def _bring_in_step(
        self, driver: DynamicSecurity, wanted: list[Wanted], due: frozenset[int]
    ) -> str:
        """Compares and corrects the broker; returns the problem, or an empty string. Raises
        `_Interrupted` for revocations that are not in `due`.
        """
        actual = await driver.state()
        ours = frozenset(name for name, client in actual.clients.items() if client.is_ours)
        if len(wanted) > MAX_CLIENTS and ours != self._there:
            self._there = ours
            wanted = await self._wanted()
        leaving = ours.difference(one.username for one in wanted)
        uuids = [uuid for name in leaving if (uuid := uuid_of_username(name))]
        gone = await self._store.accounted_for(self.broker.id, leaving, uuids) if leaving else ()
        steps = plan(wanted, actual, confirmed=gone)
        unchanged = ours.difference(steps.changed, steps.impossible)
        fingerprints = {one.username: one.fingerprint for one in wanted}
        is_full = any(isinstance(refusal, TooManyClients) for refusal in steps.refusals)
        await self._held_there.found(
            self.broker.id,
            {name: fingerprints[name] for name in unchanged if name in fingerprints},
            takes_clients=not is_full,
        )
        if steps.commands:
            await self._apply(driver, steps, fingerprints, due)
            log.info(
                "a broker was brought in step",
                broker_id=self.broker.id,
                created=len(steps.created),
                changed=len(steps.changed),
                removed=len(steps.removed),
            )
        self._is_partial = not is_full
        self._there, self._held = ours, _held_of(wanted)
        problems = [refusal.message for refusal in steps.refusals]
        if steps.taken:
            problems.append(f"clients that are not ours have these names: {steps.taken[:5]}")
        if steps.impossible:
            problems.append(
                f"{len(steps.impossible)} imported devices can only be in the file that the broker"
                f" starts with, because their passwords are not known: {steps.impossible[:5]}"
            )
        return "; ".join(problems)

    async def _apply(
        self,
        driver: DynamicSecurity,
        steps: Plan,
        fingerprints: Mapping[str, str],
        due: frozenset[int],
    ) -> None:
        """Carries out the plan, and records the progress meanwhile.

        Raises `_Interrupted` for revocations that are not in `due`.
        """
        progress = Progress(steps)
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
            await driver.apply(steps, then)
        finally:
            await note()

    async def _done(self, sessions: Mapping[int, int | None], begun: float) -> None:
        if not sessions:
            return
        await self._store.done(self.broker.id, sessions)
        KICK_SECONDS.labels(self._label).observe(_now() - begun)
        KICKED.labels(self._label).inc(len(sessions))

    async def _note(self, problem: str) -> None:
        """Records the state of the broker for the API, the metrics and the log."""
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
    """A Mosquitto does not report how many sessions it has ended, so the numbers are None."""
    return dict.fromkeys(one.id for one in revocations)


def _now() -> float:
    return asyncio.get_running_loop().time()
