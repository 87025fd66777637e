"""Delays answers to devices until the broker holds the device.

A broker whose clients Mooring manages would refuse a device that connects before the broker holds
it, and many MQTT clients never try again after one refusal. So the answer waits, separately for
each device. The registration is committed before, so other devices do not wait.
"""

import asyncio
from collections.abc import Sequence

import structlog
from mooring.registry.v1 import enforcement_pb2 as pb
from prometheus_client import Counter, Gauge, Histogram

from chassis.errors import MooringError
from gateway.answers import Awaited
from gateway.service_clients import ServiceClients

log = structlog.get_logger(__name__)

# How long an answer waits at most, in all and while its broker makes no progress.
MOST_S = 5.0
STALLED_S = 1.5
# The wait ends this long before the device's deadline, which leaves time for sending the answer.
MARGIN_S = 0.25
MAX_WAITING = 2_000
# The most calls to the registry at once, and the most devices in each.
LANES = 8
MAX_ASKED = 1_000
# How long the registry waits for a change before it answers without a change.
WITHIN_S = 0.4
# The pause after a failed call.
PAUSE_S = 0.1

WAITING = Gauge("mooring_awaiting_broker", "Devices whose answers wait for a broker to hold them")
AWAITED = Counter(
    "mooring_awaited_total",
    "Waits for a broker to hold a device, by how they ended: held, late, hopeless or full",
    ["outcome"],
)
SECONDS = Histogram(
    "mooring_awaited_seconds",
    "How long answers waited for a broker to hold their devices",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2.5, 5),
)


class Waiting:
    """A device that waits. The result of `future` is whether the broker holds it."""

    __slots__ = ("awaited", "ends_at", "future", "since")

    def __init__(self, awaited: Awaited, since: float, ends_at: float) -> None:
        """Times are of the running loop's clock."""
        self.awaited = awaited
        self.since = since
        self.ends_at = ends_at
        self.future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def abandon(self) -> None:
        """Called when the device has disconnected."""
        self.future.cancel()


class Held:
    """Asks the registry about all waiting devices, and ends each wait as soon as possible."""

    def __init__(
        self,
        services: ServiceClients,
        leaving: asyncio.Event,
        *,
        stop_within_s: float,
        most_s: float = MOST_S,
        stalled_s: float = STALLED_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """A device waits for `most_s` at most, and for `stalled_s` while its broker makes no
        progress. Once the gateway is `leaving`, no device waits longer than `stop_within_s`. If
        `max_waiting` devices wait already, another device does not wait. Use the object in one
        event loop only.
        """
        self._services = services
        self._loop = asyncio.get_running_loop()
        # Devices about which no call has asked yet.
        self._new: list[Waiting] = []
        self._lanes: set[asyncio.Task[None]] = set()
        self._count = 0
        # When brokers last made progress.
        self._progressed_at: dict[int, float] = {}
        self._most_s = most_s
        self._stalled_s = stalled_s
        self._max_waiting = max_waiting
        self._stops_at = float("inf")
        # A separate task notices that the gateway stops, because a lane may be in a call that
        # hangs.
        self._noting = self._loop.create_task(self._note_leaving(leaving, stop_within_s))

    def wait(self, awaited: Awaited, *, deadline: float) -> Waiting:
        """Starts a wait until the broker holds the device. If the device was not changed just now,
        the registry is asked only once.

        The device gets an answer by `deadline` in any case, a time of the running loop's clock.
        """
        now = self._loop.time()
        ends_at = min(now + self._most_s, deadline - MARGIN_S, self._stops_at)
        waiting = Waiting(awaited, now, ends_at if awaited.is_newly_told else now)
        if self._count >= self._max_waiting:
            self._end(waiting, is_held=False, outcome="full")
            return waiting
        self._count += 1
        WAITING.inc()
        waiting.future.add_done_callback(self._left)
        self._new.append(waiting)
        if len(self._lanes) < LANES:
            self._lanes.add(self._loop.create_task(self._follow()))
        return waiting

    async def close(self) -> None:
        """Ends all waits."""
        self._noting.cancel()
        self._stops_at = self._loop.time()
        await asyncio.gather(*self._lanes)

    async def _note_leaving(self, leaving: asyncio.Event, stop_within_s: float) -> None:
        await leaving.wait()
        self._stops_at = min(self._stops_at, self._loop.time() + stop_within_s)

    async def _follow(self) -> None:
        """Asks the registry about new devices, until the waits of all its devices have ended."""
        lane = asyncio.current_task()
        asked: list[Waiting] = []
        try:
            await self._follow_all(asked)
        except Exception:
            log.exception("devices do not wait for their brokers")
            for one in asked:
                if not one.future.done():
                    self._end(one, is_held=False, outcome="late")
        finally:
            # The lane is removed in the same turn of the event loop in which it finds no new
            # device.
            if lane is not None:
                self._lanes.discard(lane)

    async def _follow_all(self, asked: list[Waiting]) -> None:
        while True:
            room = MAX_ASKED - len(asked)
            asked += self._new[:room]
            del self._new[:room]
            asked[:] = [one for one in asked if not one.future.done()]
            if not asked:
                return
            try:
                response = await self._ask(asked)
            except MooringError:
                await asyncio.sleep(PAUSE_S)
            else:
                self._apply(asked, response)
            now = self._loop.time()
            for one in asked:
                if not one.future.done() and now >= self._ends_at(one):
                    self._end(one, is_held=False, outcome="late")

    async def _ask(self, asked: Sequence[Waiting]) -> pb.AwaitHeldResponse:
        now = self._loop.time()
        within_s = min(WITHIN_S, max(0.0, min(map(self._ends_at, asked)) - now))
        clients = [
            pb.AwaitedClient(
                broker_id=one.awaited.broker_id,
                username=one.awaited.username,
                fingerprint=one.awaited.fingerprint,
            )
            for one in asked
        ]
        return await self._services.registry.call(
            self._services.enforcement.AwaitHeld,
            pb.AwaitHeldRequest(clients=clients, within_ms=int(within_s * 1_000)),
            deadline=min(now + within_s + self._stalled_s / 2, max(now, self._stops_at) + MARGIN_S),
        )

    def _apply(self, asked: Sequence[Waiting], response: pb.AwaitHeldResponse) -> None:
        now = self._loop.time()
        for progress in response.progress:
            self._progressed_at[progress.broker_id] = now - progress.age_ms / 1_000
        for one, state in zip(asked, response.states, strict=False):
            if one.future.done():
                continue
            if state == pb.HELD_STATE_HELD:
                self._end(one, is_held=True, outcome="held")
            elif state == pb.HELD_STATE_HOPELESS:
                self._end(one, is_held=False, outcome="hopeless")

    def _ends_at(self, one: Waiting) -> float:
        """The time at which the wait ends even if the broker does not hold the device."""
        progressed_at = self._progressed_at.get(one.awaited.broker_id, 0.0)
        stalled_at = max(one.since, progressed_at) + self._stalled_s
        return min(one.ends_at, stalled_at, self._stops_at)

    def _end(self, one: Waiting, *, is_held: bool, outcome: str) -> None:
        AWAITED.labels(outcome).inc()
        SECONDS.observe(self._loop.time() - one.since)
        one.future.set_result(is_held)

    def _left(self, _: "asyncio.Future[bool]") -> None:
        self._count -= 1
        WAITING.dec()
