"""Manages all brokers, each in its own task, so that a broker that hangs delays no other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import structlog
from mooring.broker.v1 import management_pb2 as pb

from chassis.address_policy import AddressPolicy
from chassis.errors import MooringError, Unavailable
from chassis.leases import LeaseLost
from chassis.listening import Listener
from chassis.loops import Turn
from chassis.process import background
from registry_service.admission.reconciler.broker_reconciler import BrokerReconciler
from registry_service.admission.reconciler.managed import ManagedBrokers
from registry_service.admission.reconciler.store import EnforcementStore
from registry_service.credentials import KeyRing

log = structlog.get_logger(__name__)

# How often changes are read if there is no notification, because a notification may be lost.
POLL_S = 0.5
# How often the broker service is asked for the managed brokers, in seconds: if no change is
# announced, and at most.
ASK_S = 5.0
ASK_AGAIN_S = 0.5
# Notifications within this time are handled together.
APART_S = 0.02


@dataclass
class _BrokerTask:
    """The task of one broker, and whether it is to run again."""

    reconciler: BrokerReconciler
    has_changes: bool = True
    has_failed: bool = False
    task: "asyncio.Task[None] | None" = field(default=None)

    def go_on(self) -> None:
        """Starts the task, unless it runs already."""
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run())

    async def end(self) -> None:
        """Cancels the task."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        await self.reconciler.close()

    async def _run(self) -> None:
        """Runs until there are no more changes. Errors of one broker do not affect others."""
        await self._run_once()
        while self.has_changes and not self.has_failed:
            await self._run_once()

    async def _run_once(self) -> None:
        has_changes, self.has_changes = self.has_changes, False
        self.has_failed = True
        broker_id = self.reconciler.broker.id
        try:
            await self.reconciler.reconcile(has_changes=has_changes)
            self.has_failed = False
        except Unavailable as error:
            self.has_changes = True
            log.warning("a broker cannot be managed now", broker_id=broker_id, reason=error.reason)
        except Exception:
            # For example, the broker was deleted meanwhile; the next run decides.
            self.has_changes = True
            log.exception("a broker could not be managed", broker_id=broker_id)


class Reconciler:
    """Manages brokers while this process holds the lease; other processes wait for it."""

    def __init__(
        self,
        store: EnforcementStore,
        managed: ManagedBrokers,
        listener: Listener,
        wakes: Listener,
        ring: KeyRing,
        *,
        holder: str,
        drift_check_s: float,
        policy: AddressPolicy,
    ) -> None:
        """`listener` receives announcements of ended access, and `wakes` receives announcements of
        changed clients of brokers.

        `holder` names this process in the lease; `policy` limits the addresses of brokers.
        """
        self._store = store
        self._managed = managed
        self._listeners = (listener, wakes)
        self._wakes = wakes
        self._ring = ring
        self._holder = holder
        self._drift_check_s = drift_check_s
        self._policy = policy
        self._term: int | None = None
        self._brokers: dict[int, _BrokerTask] = {}
        self._asked_at = float("-inf")
        # The state of the announcements when the broker service was asked.
        self._heard = wakes.heard
        # The call to the broker service that is under way.
        self._pending_call: asyncio.Task[list[pb.ManagedBroker]] | None = None
        self._horizon = 0

    @contextlib.asynccontextmanager
    async def reconciling(self) -> AsyncIterator[Turn]:
        """Yields a loop's turn; at the end of the block another process may begin at once."""

        async def turn() -> float:
            await self.reconcile()
            await asyncio.sleep(APART_S)
            await self._occasion()
            return 0.0

        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.stop)
            for listener in self._listeners:
                await stack.enter_async_context(background(listener.run()))
            yield turn

    async def stop(self) -> None:
        """Gives up the lease, so that another process can begin at once."""
        await self._stop_managing()
        if self._term is not None:
            try:
                await self._store.lease.give_up(self._term)
            except Unavailable:
                log.warning("the lease could not be given up")

    async def reconcile(self) -> None:
        """Starts the work that is due, and does not wait for it. Raises `Unavailable`."""
        if not await self._is_alone():
            await self._stop_managing()
            return
        await self._refresh_brokers()
        self._horizon, has_changes = await self._store.changes_since(self._horizon)
        for broker_task in self._brokers.values():
            broker_task.has_changes |= has_changes
            broker_task.go_on()

    async def _occasion(self) -> None:
        """Returns after a notification or an answer, or after `POLL_S`."""
        hearing = [
            asyncio.ensure_future(listener.occasion(within_s=POLL_S))
            for listener in self._listeners
        ]
        answer = [self._pending_call] if self._pending_call is not None else []
        try:
            await asyncio.wait([*hearing, *answer], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in hearing:
                task.cancel()
            await asyncio.gather(*hearing, return_exceptions=True)

    async def _is_alone(self) -> bool:
        """Whether this process holds the lease; renews it."""
        if self._term is None:
            self._term = await self._store.lease.take(self._holder)
            if self._term is not None:
                log.info("manages brokers from now on", term=self._term)
            return self._term is not None
        try:
            async with self._store.lease.turn(self._term):
                return True
        except LeaseLost:
            log.info("another process manages brokers", term=self._term)
            self._term = None
            return False

    async def _refresh_brokers(self) -> None:
        """Refreshes the list of brokers, without waiting for the broker service. Until it answers,
        known brokers stay managed.
        """
        now = asyncio.get_running_loop().time()
        if self._pending_call is not None and self._pending_call.done():
            pending_call, self._pending_call = self._pending_call, None
            try:
                found = pending_call.result()
            except MooringError as error:
                log.warning(
                    "the list of managed brokers cannot be read from the broker service",
                    reason=error.reason,
                )
            else:
                await self._manage(found)
        is_due_after_s = ASK_S if self._wakes.heard == self._heard else ASK_AGAIN_S
        if self._pending_call is None and now - self._asked_at >= is_due_after_s:
            self._asked_at, self._heard = now, self._wakes.heard
            self._pending_call = asyncio.create_task(self._managed.now())

    async def _manage(self, brokers: Iterable[pb.ManagedBroker]) -> None:
        found = {broker.id: broker for broker in brokers}
        for broker_id, broker_task in list(self._brokers.items()):
            if found.get(broker_id) != broker_task.reconciler.broker:
                await self._brokers.pop(broker_id).end()
        for broker_id in found.keys() - self._brokers.keys():
            reconciler = BrokerReconciler(
                found[broker_id],
                self._store,
                self._ring,
                drift_check_s=self._drift_check_s,
                policy=self._policy,
            )
            self._brokers[broker_id] = _BrokerTask(reconciler)

    async def _stop_managing(self) -> None:
        """Stops managing brokers, after the lease was lost or at the end."""
        self._asked_at = float("-inf")
        if self._pending_call is not None:
            self._pending_call.cancel()
            await asyncio.gather(self._pending_call, return_exceptions=True)
            self._pending_call = None
        while self._brokers:
            _, broker_task = self._brokers.popitem()
            await broker_task.end()
