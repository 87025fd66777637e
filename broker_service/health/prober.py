"""Probes brokers: one standing session for each, with a round trip at each interval.

A new connection with all its steps is made from time to time, and at once after a fault. The probes
of different brokers are spread evenly over the interval.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from broker_service.brokers.testing.targets import Target, tls_of
from broker_service.health.gathered import Gathered
from broker_service.health.lateness import Lateness
from broker_service.health.results import of_standing, result_of
from broker_service.health.session import Failed, Session, opened
from broker_service.health.states import Result
from chassis.address_policy import AddressPolicy
from domain.pools import State

PROBES = Counter(
    "mooring_probes_total",
    "Probes of brokers by result. Void ones failed while this process itself was late",
    ["result"],
)
LATENCY = Histogram(
    "mooring_probe_latency_seconds",
    "How long a message of a probe takes through a broker",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
VOID = "void"
# The pause between the first failure and the next attempt.
RETRY_S = 2.0
# How many connections are made at the same time.
MAX_CONNECTING = 64
# Multiples of the golden ratio are spread evenly, however many there are.
GOLDEN = 0.618_033_988_749_895


@dataclass(frozen=True, slots=True)
class Timings:
    """When brokers are probed, and how long answers may take."""

    interval_s: float = 10.0
    # The time for each step of a new connection, and for a round trip.
    timeout_s: float = 5.0
    # How long a session is used.
    session_s: float = 300.0
    # A round trip that takes longer is a fault.
    slow_ms: float = 2_000.0


class Prober:
    """Probes the brokers of `follow`, and gathers the results."""

    def __init__(self, policy: AddressPolicy, timings: Timings, lateness: Lateness) -> None:
        """Probes connect to addresses that `policy` allows. While this process is late, failures
        do not count.
        """
        self.gathered = Gathered()
        self._policy = policy
        self._timings = timings
        self._lateness = lateness
        self._retry_s = min(RETRY_S, timings.interval_s)
        self._connecting = asyncio.Semaphore(MAX_CONNECTING)
        self._watched: dict[int, tuple[Target, asyncio.Task[None]]] = {}
        self._contexts: dict[tuple[str | None, bool], ssl.SSLContext] = {}

    async def follow(self, targets: Mapping[int, Target]) -> None:
        """Probes these brokers from now on, and no others. What was found about a broker that has
        changed is forgotten.
        """
        ended = [
            broker_id
            for broker_id, (target, task) in self._watched.items()
            if targets.get(broker_id) != target or task.done()
        ]
        tasks = [self._watched.pop(broker_id)[1] for broker_id in ended]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for broker_id in ended:
            self.gathered.forget(broker_id)
        for broker_id in targets.keys() - self._watched.keys():
            target = targets[broker_id]
            task = asyncio.create_task(self._watch(target), name=f"probes of broker {broker_id}")
            self._watched[broker_id] = target, task
        if ended:
            used = {(target.ca_pem, target.verify_certificate) for target in targets.values()}
            self._contexts = {key: kept for key, kept in self._contexts.items() if key in used}

    async def _watch(self, target: Target) -> None:
        failures = 0
        while True:
            begun = _now()
            try:
                async with self._connecting:
                    session = await self._opened(target)
            except Failed as failed:
                self._failed(target, begun, result_of(failed.step, failed.fault))
                failures += 1
                await asyncio.sleep(self._retry_s if failures == 1 else self._until(target))
                continue
            failures = 0
            if session is None:
                self._passed(target, begun, None)
                await asyncio.sleep(self._until(target))
                continue
            async with aclosing(session):
                is_well = await self._stay(target, session)
            if not is_well:
                failures = 1
                await asyncio.sleep(self._retry_s)

    async def _opened(self, target: Target) -> Session | None:
        """A session in which a message has come back; None if the broker refuses clients without a
        login. Raises `Failed`.
        """
        begun = _now()
        session = await opened(target, self._policy, self._context_of, self._timings.timeout_s)
        if session is not None:
            try:
                latency_ms = await session.round_trip(self._timings.timeout_s)
            except BaseException:
                await session.aclose()
                raise
            self._passed(target, begun, latency_ms)
        return session

    async def _stay(self, target: Target, session: Session) -> bool:
        """Makes round trips until the session is old. Returns whether all passed."""
        ends = _now() + self._until(target, self._timings.session_s)
        while _now() < ends:
            await asyncio.wait([session.answer], timeout=self._until(target))
            begun = _now()
            try:
                latency_ms = await session.round_trip(self._timings.timeout_s)
            except Failed as failed:
                self._failed(target, begun, of_standing(failed.fault))
                return False
            self._passed(target, begun, latency_ms)
        return True

    def _until(self, target: Target, interval_s: float | None = None) -> float:
        """The seconds until the next turn of this broker."""
        interval_s = interval_s or self._timings.interval_s
        phase = target.broker_id * GOLDEN % 1.0
        return (phase - _now() / interval_s) % 1.0 * interval_s

    def _passed(self, target: Target, begun: float, latency_ms: float | None) -> None:
        result = Result(State.UP, latency_ms=latency_ms)
        if latency_ms is not None:
            if self._lateness.since(begun):
                # The latency is that of this process.
                result = Result(State.UP)
            else:
                LATENCY.observe(latency_ms / 1_000)
                if latency_ms > self._timings.slow_ms:
                    detail = f"a message takes {latency_ms / 1_000:.1f} s"
                    result = Result(State.DEGRADED, "SLOW", detail, latency_ms)
        self._note(target, result)

    def _failed(self, target: Target, begun: float, result: Result) -> None:
        if self._lateness.since(begun):
            PROBES.labels(VOID).inc()
        else:
            self._note(target, result)

    def _note(self, target: Target, result: Result) -> None:
        PROBES.labels(result.state).inc()
        self.gathered.note(target.broker_id, result)

    def _context_of(self, target: Target) -> ssl.SSLContext:
        key = target.ca_pem, target.verify_certificate
        if key not in self._contexts:
            self._contexts[key] = tls_of(target)
        return self._contexts[key]


def _now() -> float:
    return asyncio.get_running_loop().time()
