"""Devices that wait for a broker are answered, whatever happens to the registry and the gateway.

The registry is a fake on a real gRPC server, because tests must cause each fault.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mooring.registry.v1 import enforcement_pb2 as pb
from mooring.registry.v1 import enforcement_pb2_grpc, registration_pb2
from prometheus_client import REGISTRY

from chassis.errors import Unavailable
from chassis.server import Health
from chassis.servicers import allows
from gateway.answers import Awaited
from gateway.config import GatewayConfig
from gateway.held import Held, Waiting
from gateway.service_clients import ServiceClients
from tests.integration.gateway.test_gateway_faults import (
    GATEWAY_ONLY,
    FakeRegistry,
    Stage,
    fake_service,
    secret_file,
    staged,
)

# Everything here takes a second or two; busy machines get more time.
PATIENCE_S = 20.0
OUTCOMES = ("held", "late", "hopeless", "full")


@dataclass
class FakeEnforcement(enforcement_pb2_grpc.EnforcementServiceServicer):
    """Answers that brokers do not hold any client yet, until `is_held` is set."""

    is_held: asyncio.Event = field(default_factory=asyncio.Event)
    # Calls wait until it is set.
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    makes_progress: bool = False
    # The error that each call raises.
    failure: Exception | None = None
    # The usernames of each call.
    asked: list[list[str]] = field(default_factory=list)

    async def GetEnforcement(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def ListEnforcement(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    @allows(GATEWAY_ONLY)
    async def AwaitHeld(  # noqa: N802
        self,
        request: pb.AwaitHeldRequest,
        context: Any,
    ) -> pb.AwaitHeldResponse:
        self.asked.append([one.username for one in request.clients])
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(request.within_ms / 1_000):
                await self.is_held.wait()
        state = pb.HELD_STATE_HELD if self.is_held.is_set() else pb.HELD_STATE_PENDING
        brokers = {one.broker_id for one in request.clients} if self.makes_progress else set()
        return pb.AwaitHeldResponse(
            states=[state] * len(request.clients),
            progress=[pb.BrokerProgress(broker_id=one) for one in brokers],
        )


class FakeManagedRegistry(FakeRegistry):
    """Sends devices to a managed broker."""

    def _connection(self, uuid: str) -> registration_pb2.Connection:
        found = super()._connection(uuid)
        found.held_as, found.newly_told = "fingerprint", True
        return found


@pytest.fixture
async def enforcement() -> AsyncIterator[FakeEnforcement]:
    found = FakeEnforcement()
    found.is_open.set()
    yield found
    # When services stop, they wait for the calls under way.
    found.is_open.set()


@contextlib.asynccontextmanager
async def asking(folder: Path, enforcement: FakeEnforcement) -> AsyncIterator[ServiceClients]:
    secret, health = secret_file(folder, "secret"), Health()
    async with fake_service(secret, health, enforcement) as port:
        services = ServiceClients(
            GatewayConfig(registry_service_address=f"127.0.0.1:{port}", caller_secret_file=secret)
        )
        try:
            yield services
        finally:
            enforcement.is_open.set()
            await services.close()


def begun(held: Held, uuid: str) -> Waiting:
    loop = asyncio.get_running_loop()
    return held.wait(Awaited(1, uuid, "fingerprint", True), deadline=loop.time() + 60)


async def timed(waiting: Waiting) -> tuple[bool, float]:
    """Whether the client is held, and after how many seconds that was answered."""
    async with asyncio.timeout(PATIENCE_S):
        is_held = await waiting.future
    return is_held, asyncio.get_running_loop().time() - waiting.since


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


def waiting_now() -> float:
    return REGISTRY.get_sample_value("mooring_awaiting_broker") or 0.0


def ended(*outcomes: str) -> float:
    """How many waits have ended with these outcomes, in this process."""
    found = (
        REGISTRY.get_sample_value("mooring_awaited_total", {"outcome": outcome}) or 0.0
        for outcome in outcomes
    )
    return sum(found)


async def test_beyond_the_limit_of_waiting_devices_answers_do_not_wait(
    tmp_path: Path, enforcement: FakeEnforcement
) -> None:
    async with asking(tmp_path, enforcement) as services:
        enforcement.makes_progress = True
        held = Held(services, asyncio.Event(), stop_within_s=1, max_waiting=3)
        first, *others = [begun(held, f"d{number}") for number in range(3)]
        full = ended("full")
        more = [begun(held, f"more{number}") for number in range(5)]
        # They are answered in the same turn of the event loop, so without any wait.
        assert [one.future.result() for one in more] == [False] * 5
        assert ended("full") == full + 5
        assert not any(one.future.done() for one in (first, *others))
        first.abandon()
        await asyncio.wait([first.future])
        # The place of the first is free again.
        late = begun(held, "late")
        assert not late.future.done()
        enforcement.is_held.set()
        assert [(await timed(one))[0] for one in (*others, late)] == [True] * 3
        await held.close()


@pytest.mark.parametrize("fault", ["unavailable", "broken", "hangs"])
async def test_an_unavailable_registry_delays_answers_by_a_bounded_time(
    tmp_path: Path, enforcement: FakeEnforcement, fault: str
) -> None:
    async with asking(tmp_path, enforcement) as services:
        if fault == "hangs":
            enforcement.is_open.clear()
        else:
            enforcement.failure = (
                Unavailable("not now", retry_after_s=1)
                if fault == "unavailable"
                else RuntimeError("a fault of the registry")
            )
        held = Held(services, asyncio.Event(), stop_within_s=1, stalled_s=0.4)
        late = ended("late")
        found = await asyncio.gather(*(timed(begun(held, f"d{number}")) for number in range(30)))
        assert not any(is_held for is_held, _ in found)
        # This is much less than the five seconds for which they would wait for a busy broker.
        assert all(0.4 <= took_s < 4 for _, took_s in found)
        assert ended("late") == late + 30
        # The next one does not wait behind them.
        enforcement.failure = None
        enforcement.is_open.set()
        enforcement.is_held.set()
        assert (await timed(begun(held, "next")))[0]
        await held.close()


async def test_a_broker_that_makes_progress_is_waited_for_until_the_limit(
    tmp_path: Path, enforcement: FakeEnforcement
) -> None:
    async with asking(tmp_path, enforcement) as services:
        stalled = Held(services, asyncio.Event(), stop_within_s=1, most_s=60, stalled_s=0.2)
        is_held, took_s = await timed(begun(stalled, "stalled"))
        assert not is_held
        assert took_s >= 0.2
        enforcement.makes_progress = True
        busy = Held(services, asyncio.Event(), stop_within_s=1, most_s=1.5, stalled_s=0.5)
        is_held, took_s = await timed(begun(busy, "busy"))
        assert not is_held
        assert took_s >= 1.5
        await asyncio.gather(stalled.close(), busy.close())


async def register_waiting(stage: Stage, count: int) -> list[asyncio.Task[Any]]:
    """Returns when `count` devices wait for their broker."""
    before = waiting_now()
    asked = [asyncio.create_task(stage.register(f"d{number}")) for number in range(count)]
    await until(lambda: waiting_now() == before + count)
    return asked


@pytest.mark.parametrize("fault", ["pending", "hangs"])
async def test_a_gateway_that_stops_answers_all_that_wait(
    tmp_path: Path, enforcement: FakeEnforcement, fault: str
) -> None:
    if fault == "hangs":
        enforcement.is_open.clear()
    enforcement.makes_progress = True
    async with staged(
        tmp_path,
        registry=FakeManagedRegistry(),
        others=[enforcement],
        shutdown_grace_s=1,
    ) as stage:
        asked = await register_waiting(stage, 20)
        await stage.gateway.aclose()
        # The gateway answered them before it closed their connections.
        answers = await asyncio.gather(*asked)
        enforcement.is_open.set()
    assert [answer.status_code for answer in answers] == [201] * 20
    assert [answer.json()["mqtt"]["ready"] for answer in answers] == [False] * 20


async def test_a_device_that_disconnects_leaves_no_waiter_behind(
    tmp_path: Path, enforcement: FakeEnforcement
) -> None:
    enforcement.makes_progress = True
    async with staged(tmp_path, registry=FakeManagedRegistry(), others=[enforcement]) as stage:
        before, answered = waiting_now(), ended(*OUTCOMES)
        staying, *leaving = await register_waiting(stage, 5)
        for one in leaving:
            one.cancel()
        await until(lambda: waiting_now() == before + 1)
        # Their waits have ended without an outcome.
        assert ended(*OUTCOMES) == answered
        await until(lambda: enforcement.asked[-1] == ["d0"])
        enforcement.is_held.set()
        answer = await staying
        assert answer.status_code == 201
        assert "ready" not in answer.json()["mqtt"]
        assert waiting_now() == before
