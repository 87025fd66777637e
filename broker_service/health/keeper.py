"""Turns the results of probes into the states of brokers, in one process at a time."""

import asyncio
import secrets
from collections import Counter
from dataclasses import replace

import structlog
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from broker_service.brokers.device_counts.report_store import out_of_reach
from broker_service.health.probe_store import Written, opinions_elsewhere, write_results
from broker_service.health.prober import Prober
from broker_service.health.state_store import states_now, write_states
from broker_service.health.states import Decision, Now, Result, consensus, decide, with_reports
from broker_service.health.target_store import Targets
from chassis.errors import Unavailable
from chassis.leases import Lease, LeaseLost
from domain.pools import State

log = structlog.get_logger(__name__)

LEASE = "broker_probes"
# Together with a turn, this is how long a prober that hangs delays its replacement.
LEASE_S = 7.0
TURN_S = 1.0
# How often the reports of devices are read.
REPORTS_S = 5.0

STATES = Gauge("mooring_broker_states", "Active brokers by state", ["state"])


class Keeper:
    """Probes while this process holds the lease, and writes what it finds."""

    def __init__(
        self,
        lease: Lease,
        holder: str,
        targets: Targets,
        prober: Prober,
        *,
        vantage: str,
        dwell_s: float,
        lately_s: float,
        acts: bool,
    ) -> None:
        """`holder` names this process in the lease, `vantage` the place from which it probes. What
        other places reported within `lately_s` counts. Unless it `acts`, only results are written.
        """
        self._lease = lease
        self._holder = holder
        self._targets = targets
        self._prober = prober
        self._vantage = vantage
        self._dwell_s = dwell_s
        self._lately_s = lately_s
        self._acts = acts
        self._term: int | None = None
        # When the share of a broker's devices last changed, by the loop's clock.
        self._stepped_at: dict[int, float] = {}
        # The brokers that many devices reported they cannot reach.
        self._out_of_reach = frozenset[int]()
        self._reports_due_at = 0.0

    async def turn(self) -> float:
        """Does what is due; returns the seconds until the next turn. Raises `Unavailable`."""
        if self._term is None:
            self._term = await self._lease.take(self._holder)
            if self._term is None:
                return TURN_S
            log.info("probes the brokers from now on", term=self._term)
        try:
            async with self._lease.turn(self._term) as connection:
                await self._decide_and_write(connection)
        except LeaseLost:
            log.info("another process probes the brokers", term=self._term)
            self._term = None
            await self._prober.follow({})
            self._stepped_at = {}
        else:
            await self._prober.follow(self._targets.current)
        return TURN_S

    async def stop(self) -> None:
        """Stops probing, and gives up the lease, so that another process can begin at once."""
        await self._prober.follow({})
        if self._term is None:
            return
        try:
            await self._lease.give_up(self._term)
        except Unavailable:
            log.warning("the lease could not be given up")

    async def _decide_and_write(self, connection: AsyncConnection) -> None:
        """States first: the lock that they need must be taken before any other."""
        if self._acts:
            await self._write_states(connection)
        gathered = self._prober.gathered
        results = {
            broker_id: Written(sums, gathered.opinion(broker_id))
            for broker_id, sums in gathered.take().items()
        }
        await write_results(connection, self._vantage, results)

    async def _write_states(self, connection: AsyncConnection) -> None:
        present = await states_now(connection)
        await self._read_reports(connection)
        elsewhere = await opinions_elsewhere(connection, self._vantage, self._lately_s)
        decisions = {}
        for broker_id, now in present.items():
            found = self._found(broker_id, elsewhere.get(broker_id, []))
            decision = decide(self._aged(broker_id, now), found, self._dwell_s, _salt())
            if decision != Decision(now.state, now.reason, now.returning_percent, now.salt):
                decisions[broker_id] = decision
        written = await write_states(connection, decisions) if decisions else frozenset()
        for broker_id in written:
            self._stepped_at[broker_id] = _now()
            decision, now = decisions[broker_id], present[broker_id]
            if decision.state is not now.state:
                log.info(
                    "the state of a broker has changed",
                    broker_id=broker_id,
                    was=now.state.value,
                    state=decision.state.value,
                    reason=decision.reason,
                )
        counts = Counter(
            decisions[one].state if one in written else now.state for one, now in present.items()
        )
        for state in State:
            STATES.labels(state.value).set(counts[state])

    async def _read_reports(self, connection: AsyncConnection) -> None:
        if _now() >= self._reports_due_at:
            self._out_of_reach = await out_of_reach(connection)
            self._reports_due_at = _now() + REPORTS_S

    def _found(self, broker_id: int, elsewhere: list[Result]) -> Result | None:
        own = self._prober.gathered.opinion(broker_id)
        found = consensus(elsewhere if own is None else [own, *elsewhere])
        return with_reports(found, is_out_of_reach=broker_id in self._out_of_reach)

    def _aged(self, broker_id: int, now: Now) -> Now:
        """With the time since the last step. This process may have just begun, so it waits."""
        stepped_at = self._stepped_at.setdefault(broker_id, _now())
        return replace(now, step_age_s=_now() - stepped_at)


def _salt() -> str:
    return secrets.token_hex(8)


def _now() -> float:
    return asyncio.get_running_loop().time()
