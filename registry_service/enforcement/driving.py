"""Drives brokers: ends the sessions of whose access has ended, and keeps Mosquittos in step.

Nothing that matters is remembered: after a restart of this process or of a broker, looking at both
sides says what is to be done.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from mooring.broker.v1 import management_pb2 as pb
from prometheus_client import Counter, Gauge, Histogram

from chassis.errors import MooringError, Unavailable
from chassis.listening import Listener
from chassis.process import background
from registry_service.access.decision import uuid_of_username
from registry_service.credentials import KeyRing
from registry_service.enforcement.control import DynamicSecurity
from registry_service.enforcement.dynamic_security import Wanted
from registry_service.enforcement.http_management import Kicker
from registry_service.enforcement.managed import Driver, ManagedBrokers, driver_of
from registry_service.enforcement.planning import MAX_CLIENTS, plan
from registry_service.enforcement.store import EnforcementStore, Revocation
from registry_service.enforcement.wanted import wanted_of
from registry_service.errors import LeaseLost

log = structlog.get_logger(__name__)

# How often it looks for what is not announced: devices that were told a broker.
POLL_S = 0.5
# Whoever was let in a moment before the revocation, and is not connected yet, escapes the first
# look at a broker that asks.
LOOK_AGAIN_S = 2.0
# How often the broker service is asked which brokers there are, and a broker that failed is tried.
ASK_S = 5.0

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


@dataclass
class _Driven:
    """A broker, and what was done to it last; times are of the running loop's clock."""

    broker: pb.ManagedBroker
    driver: Driver | None = None
    # What it should hold, as of the last time that it did.
    held: list[tuple[str, str]] | None = None
    compared_at: float = float("-inf")
    tries_again_at: float = float("-inf")
    noted: str | None = None
    # Whose sessions are looked for once more, and when.
    again: list[tuple[float, frozenset[str]]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """For metrics."""
        return str(self.broker.id)


class Driving:
    """One process that may drive brokers; others may wait for it to end."""

    def __init__(
        self,
        store: EnforcementStore,
        managed: ManagedBrokers,
        listener: Listener,
        ring: KeyRing,
        *,
        holder: str,
        drift_check_s: float,
    ) -> None:
        """`holder` is a name for this process, for people."""
        self._store = store
        self._managed = managed
        self._listener = listener
        self._ring = ring
        self._holder = holder
        self._drift_check_s = drift_check_s
        self._term: int | None = None
        self._driven: dict[int, _Driven] = {}
        self._asked_at = float("-inf")
        self._horizon = 0

    async def keep_driving(self) -> None:
        """Runs until it is cancelled."""
        async with background(self._listener.run()):
            while True:
                try:
                    await self.drive()
                except Unavailable as error:
                    log.warning("brokers cannot be driven now", reason=error.reason)
                await self._listener.occasion(within_s=POLL_S)

    async def stop(self) -> None:
        """Lets another begin at once."""
        for driven in self._driven.values():
            await _close(driven.driver)
        if self._term is not None:
            try:
                await self._store.lease.give_up(self._term)
            except Unavailable:
                log.warning("the lease could not be given up")

    async def drive(self) -> None:
        """Does what is to be done now, at all brokers at once. Raises `Unavailable`."""
        if not await self._is_alone():
            return
        await self._look_for_brokers()
        horizon, has_changes = await self._store.changes_since(self._horizon)
        async with asyncio.TaskGroup() as tasks:
            for driven in self._driven.values():
                tasks.create_task(self._attend(driven, has_changes=has_changes))
        self._horizon = horizon

    async def _is_alone(self) -> bool:
        """Whether it is this process that drives; renews the lease."""
        if self._term is None:
            self._term = await self._store.lease.take(self._holder)
            if self._term is not None:
                log.info("drives brokers from now on", term=self._term)
            return self._term is not None
        try:
            async with self._store.lease.turn(self._term):
                return True
        except LeaseLost:
            log.info("another process drives brokers", term=self._term)
            self._term = None
            return False

    async def _look_for_brokers(self) -> None:
        now = _now()
        if now - self._asked_at < ASK_S:
            return
        try:
            found = {broker.id: broker for broker in await self._managed.now()}
        except MooringError as error:
            # Those that are known are driven as they were.
            log.warning("the broker service does not say what it drives", reason=error.reason)
            return
        self._asked_at = now
        for broker_id in self._driven.keys() - found.keys():
            await _close(self._driven.pop(broker_id).driver)
            IN_STEP.remove(str(broker_id))
        for broker_id, broker in found.items():
            known = self._driven.get(broker_id)
            if known is None or known.broker != broker:
                if known is not None:
                    await _close(known.driver)
                self._driven[broker_id] = _Driven(broker)

    async def _attend(self, driven: _Driven, *, has_changes: bool) -> None:
        """Whatever is wrong with one broker stays with it."""
        now = _now()
        due = await self._store.due(driven.broker.id)
        is_mosquitto = driven.broker.management == "mosquitto"
        is_drift_due = is_mosquitto and now - driven.compared_at >= self._drift_check_s
        is_failing = bool(driven.noted)
        if is_failing and now < driven.tries_again_at:
            return
        is_new = driven.noted is None
        is_again = bool(driven.again) and driven.again[0][0] <= now
        is_due = due or is_again or is_drift_due
        if not (is_due or is_failing or is_new or (has_changes and is_mosquitto)):
            return
        try:
            if driven.driver is None:
                driven.driver = driver_of(driven.broker)
            driver = driven.driver
            problem = ""
            if isinstance(driver, DynamicSecurity):
                found = await self._keep_in_step(driven, driver, due, is_forced=is_drift_due)
                if found is None:
                    return
                problem = found
            else:
                await self._kick(driven, driver, due)
        except MooringError as error:
            problem = error.message
            driven.tries_again_at = now + ASK_S
            driven.held = None
            if due:
                await self._store.failed([one.id for one in due], problem)
        await self._note(driven, problem)

    async def _kick(self, driven: _Driven, driver: Kicker, due: Iterable[Revocation]) -> None:
        """At a broker that asks who may connect: it has refused them already."""
        begun = _now()
        by_id = {one.id: one.username for one in due}
        again = [names for at, names in driven.again if at <= begun]
        usernames = frozenset(by_id.values()).union(*again)
        if not usernames:
            return
        sessions = await driver.kick(usernames)
        driven.again = driven.again[len(again) :]
        if by_id:
            driven.again.append((begun + LOOK_AGAIN_S, frozenset(by_id.values())))
        await self._done(driven, {key: sessions[name] for key, name in by_id.items()}, begun)

    async def _keep_in_step(
        self,
        driven: _Driven,
        driver: DynamicSecurity,
        due: list[Revocation],
        *,
        is_forced: bool,
    ) -> str | None:
        """What keeps it from being so; empty where nothing does, None where nothing was done."""
        begun = _now()
        ended = {one.username for one in due if one.reason != "rotated"}
        if ended:
            # This takes a millisecond; what follows looks at all clients.
            await driver.disable(ended)
            await self._done(driven, _unknown(one for one in due if one.reason != "rotated"), begun)
        rows = await self._store.wanted(driven.broker.id, MAX_CLIENTS)
        wanted = wanted_of(rows, self._ring)
        held = sorted((one.username, one.fingerprint) for one in wanted)
        rotated = [one for one in due if one.reason == "rotated"]
        if held == driven.held and not (is_forced or ended or rotated):
            return None
        problem = await self._bring_in_step(driven, driver, wanted)
        driven.held = None if problem else held
        driven.compared_at = _now()
        # A client whose password is set anew is disconnected by that.
        await self._done(driven, _unknown(rotated), begun)
        return problem

    async def _bring_in_step(
        self, driven: _Driven, driver: DynamicSecurity, wanted: list[Wanted]
    ) -> str:
        actual = await driver.state()
        ours = {name for name, client in actual.clients.items() if client.is_ours}
        leaving = ours.difference(one.username for one in wanted)
        uuids = [uuid for name in leaving if (uuid := uuid_of_username(name))]
        gone = await self._store.accounted_for(driven.broker.id, leaving, uuids) if leaving else ()
        what = plan(wanted, actual, confirmed=gone)
        if what.commands:
            await driver.apply(what)
            COMMANDS.labels(driven.label).inc(len(what.commands))
            log.info(
                "a broker was brought in step",
                broker_id=driven.broker.id,
                created=len(what.created),
                changed=len(what.changed),
                removed=len(what.removed),
            )
        problems = [refusal.message for refusal in what.refusals]
        if what.taken:
            problems.append(f"clients that are not ours have these names: {what.taken[:5]}")
        if what.impossible:
            problems.append(
                f"{len(what.impossible)} imported devices can only be in the file that the broker"
                f" starts with, for nobody knows their passwords: {what.impossible[:5]}"
            )
        return "; ".join(problems)

    async def _done(
        self, driven: _Driven, sessions: Mapping[int, int | None], begun: float
    ) -> None:
        if not sessions:
            return
        await self._store.done(sessions)
        KICK_SECONDS.labels(driven.label).observe(_now() - begun)
        KICKED.labels(driven.label).inc(len(sessions))

    async def _note(self, driven: _Driven, problem: str) -> None:
        """What people are told of it; written when it changes, and with every comparison."""
        IN_STEP.labels(driven.label).set(not problem)
        if problem and problem != driven.noted:
            log.warning("a broker is not in step", broker_id=driven.broker.id, problem=problem)
        driven.noted = problem
        clients = len(driven.held) if driven.held is not None else None
        await self._store.note(
            driven.broker.id, clients=clients, is_in_step=not problem, problem=problem
        )


def _unknown(revocations: Iterable[Revocation]) -> dict[int, int | None]:
    """A Mosquitto does not say how many sessions it has ended."""
    return dict.fromkeys(one.id for one in revocations)


async def _close(driver: Driver | None) -> None:
    if driver is not None and not isinstance(driver, DynamicSecurity):
        await driver.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
