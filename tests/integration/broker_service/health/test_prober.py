"""Probes of real Mosquittos find what is wrong with them."""

import asyncio
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from broker_service.health.lateness import Lateness
from broker_service.health.prober import Prober
from broker_service.health.states import Result
from chassis.address_policy import DEFAULT
from chassis.process import background
from domain.pools import State
from tests.integration.broker_service.health.probed import FAST, Broker, probing, until


def is_found(prober: Prober, state: State, *reasons: str, broker_id: int = 7) -> bool:
    """Whether the last results say this."""
    found = prober.gathered.opinion(broker_id)
    return found is not None and found.state is state and found.reason in (reasons or ("",))


def opinion(prober: Prober) -> Result | None:
    return prober.gathered.opinion(7)


async def test_a_broker_that_works_is_up_and_has_a_latency(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    with broker.running():
        async with probing(broker.target()) as prober:
            await until(lambda: is_found(prober, State.UP))
            await until(lambda: prober.gathered.sums_of(7).probes >= 5)
    sums = prober.gathered.take()[7]
    assert sums.failures == 0
    assert len(sums.latencies_ms) == sums.probes
    assert all(0 < latency < 500 for latency in sums.latencies_ms)
    # One session was enough for them all.
    assert (tmp_path / "mosquitto.log").read_text().count("New client connected") == 1


async def test_a_killed_broker_is_down_and_comes_back(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    async with probing(broker.target()) as prober:
        with broker.running() as process:
            await until(lambda: is_found(prober, State.UP))
            process.kill()
            await until(lambda: is_found(prober, State.DOWN, "PORT_CLOSED", "MQTT_CLOSED"))
        with broker.running():
            await until(lambda: is_found(prober, State.UP))


async def test_a_frozen_broker_is_down_and_comes_back(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    with broker.running() as process:
        async with probing(broker.target()) as prober:
            await until(lambda: is_found(prober, State.UP))
            process.send_signal(signal.SIGSTOP)
            try:
                await until(lambda: is_found(prober, State.DOWN, "MQTT_SILENT", "TLS_SILENT"))
            finally:
                process.send_signal(signal.SIGCONT)
            await until(lambda: is_found(prober, State.UP))


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({"ca_pem": trustme.CA().cert_pem.bytes().decode()}, State.DOWN, "ISSUER_UNKNOWN"),
        ({"host": "127.0.0.1"}, State.DOWN, "NAME_MISMATCH"),
        ({"host": "nowhere.invalid"}, State.DOWN, "NAME_UNKNOWN"),
        ({"ca_pem": "no PEM"}, State.DEGRADED, "CA_UNREADABLE"),
        ({"use_tls": False, "protocol": "mqtt"}, State.DOWN, "MQTT_CLOSED"),
        ({"password": "wrong"}, State.DEGRADED, "NOT_AUTHORIZED"),
        ({"password_problem": "give it again"}, State.DEGRADED, "PASSWORD_UNUSABLE"),
        ({"username": None, "password": None}, State.UP, ""),
    ],
)
async def test_each_fault_has_a_state_and_a_reason(
    tmp_path: Path, changes: dict[str, object], state: State, reason: str
) -> None:
    broker = Broker(tmp_path)
    with broker.running():
        async with probing(broker.target(**changes)) as prober:
            await until(lambda: opinion(prober) is not None)
            found = opinion(prober)
    assert found is not None
    assert found.state is state, found
    assert found.reason.removeprefix("CERTIFICATE_") == reason
    assert bool(found.detail) == bool(reason)


async def test_an_expired_certificate_makes_a_broker_down(tmp_path: Path) -> None:
    broker = Broker(tmp_path, not_after=datetime.now(UTC) - timedelta(days=1))
    with broker.running():
        async with probing(broker.target()) as prober:
            await until(lambda: is_found(prober, State.DOWN, "CERTIFICATE_EXPIRED"))


@pytest.mark.parametrize("acl", ["topic read mooring/probe/#\n", "topic write mooring/probe/#\n"])
async def test_a_refused_message_makes_a_broker_degraded(tmp_path: Path, acl: str) -> None:
    broker = Broker(tmp_path, acl=acl)
    with broker.running():
        async with probing(broker.target()) as prober:
            reasons = "MESSAGE_LOST", "SUBSCRIPTION_REFUSED"
            await until(lambda: is_found(prober, State.DEGRADED, *reasons))


async def test_a_slow_broker_is_degraded(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    with broker.running():
        # Every message takes longer than this.
        timings = replace(FAST, slow_ms=0.001)
        async with probing(broker.target(), timings=timings) as prober:
            await until(lambda: is_found(prober, State.DEGRADED, "SLOW"))
            found = opinion(prober)
    assert found is not None
    assert found.latency_ms is not None
    assert found.latency_ms > 0.001


async def test_an_address_that_the_policy_refuses_is_not_probed(tmp_path: Path) -> None:
    target = Broker(tmp_path).target()
    async with probing(target, policy=DEFAULT) as prober:
        await until(lambda: is_found(prober, State.UNKNOWN, "NOT_PROBED"))


async def test_a_changed_broker_is_judged_anew(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    with broker.running():
        async with probing(broker.target(password="wrong")) as prober:
            await until(lambda: is_found(prober, State.DEGRADED, "NOT_AUTHORIZED"))
            await prober.follow({7: broker.target()})
            await until(lambda: is_found(prober, State.UP))
            await prober.follow({})
            assert opinion(prober) is None


async def test_a_session_is_replaced_from_time_to_time(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    log = tmp_path / "mosquitto.log"
    with broker.running():
        timings = replace(FAST, session_s=1.0)
        async with probing(broker.target(), timings=timings) as prober:
            await until(lambda: log.read_text().count("New client connected") >= 3)
    assert prober.gathered.sums_of(7).failures == 0


async def test_a_late_process_does_not_call_brokers_down(tmp_path: Path) -> None:
    """The event loop hangs for longer than any time limit, again and again."""
    broker = Broker(tmp_path)
    with broker.running():
        timings = replace(FAST, timeout_s=0.3)
        async with probing(broker.target(), timings=timings) as prober:
            await until(lambda: is_found(prober, State.UP))
            for _ in range(8):
                hang(0.8)
                assert prober.gathered.take()[7].failures == 0
                await until(lambda: prober.gathered.sums_of(7).probes > 0)
            assert prober.gathered.sums_of(7).failures == 0


def hang(seconds: float) -> None:
    """Keeps the event loop busy."""
    ends = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends:
        pass


async def test_lateness_is_known_before_and_after_the_next_tick() -> None:
    lateness = Lateness()
    loop = asyncio.get_running_loop()
    async with background(lateness.watch()):
        await asyncio.sleep(0)
        begun = loop.time()
        assert not lateness.since(begun)
        hang(0.7)
        assert lateness.since(begun)
        await until(lambda: not lateness.since(loop.time()))
        assert lateness.since(begun)
