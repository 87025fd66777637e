"""The worker writes the states of brokers, in one process at a time."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker_service.config import BrokerWorkerConfig
from broker_service.worker.__main__ import running, wanted_loops
from chassis.address_policy import UNRESTRICTED
from chassis.probes import Probes
from tests import REPOSITORY
from tests.integration.broker_service.health.probed import PASSWORD, USERNAME, Broker
from tests.stack import Stack

PATIENCE_S = 30.0


def config_of(stack: Stack, **changes: Any) -> BrokerWorkerConfig:
    values = {
        "database_url": stack.database.url("mooring_broker"),
        "encryption_keys_file": stack.encryption_keys_file,
        "broker_address_policy": UNRESTRICTED,
        "health_interval_s": 0.3,
        "health_timeout_s": 1.0,
        "health_dwell_s": 0.5,
        **changes,
    }
    return BrokerWorkerConfig(**values)


@asynccontextmanager
async def worker(stack: Stack, **changes: Any) -> AsyncIterator[Probes]:
    """The worker in this process."""
    config, probes = config_of(stack, **changes), Probes()
    async with running(config, wanted_loops(config), probes):
        probes.begin()
        yield probes


async def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.05)


async def created(stack: Stack, broker: Broker, **fields: Any) -> int:
    """Makes the broker in Mooring; only its own topics are its login's."""
    body = {
        "name": f"of port {broker.port}",
        "protocol": "mqtts",
        "host": "localhost",
        "port": broker.port,
        "ca_cert": broker.ca.cert_pem.bytes().decode(),
        "username": USERNAME,
        "password": PASSWORD,
        **fields,
    }
    answer = await stack.admin("POST", "/brokers", json=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def state_of(stack: Stack, broker_id: int) -> tuple[str, str] | None:
    query = "SELECT state, reason FROM broker_states WHERE broker_id = %s"
    rows = stack.database.execute(query, broker_id)
    return rows[0] if rows else None


def returning(stack: Stack, broker_id: int) -> tuple[float, str]:
    query = "SELECT returning_percent::float8, salt FROM broker_states WHERE broker_id = %s"
    [row] = stack.database.execute(query, broker_id)
    return row  # type: ignore[no-any-return]


def history_of(stack: Stack, broker_id: int) -> list[tuple[str, str]]:
    query = "SELECT was, state FROM broker_state_history WHERE broker_id = %s ORDER BY id"
    return stack.database.execute(query, broker_id)


def count(stack: Stack, table: str, condition: str = "true") -> int:
    [(number,)] = stack.database.execute(f"SELECT count(*) FROM {table} WHERE {condition}")
    return int(number)


async def test_a_broker_goes_down_and_its_devices_come_back_in_steps(
    stack: Stack, tmp_path: Path
) -> None:
    broker = Broker(tmp_path)
    broker_id = await created(stack, broker)
    async with worker(stack):
        with broker.running() as process:
            await until(lambda: state_of(stack, broker_id) == ("up", ""))
            process.kill()
            await until(lambda: state_of(stack, broker_id)[0] == "down")  # type: ignore[index]
            assert state_of(stack, broker_id)[1] in (  # type: ignore[index]
                "PORT_CLOSED",
                "MQTT_CLOSED",
            )
        with broker.running():
            await until(lambda: state_of(stack, broker_id)[0] == "up")  # type: ignore[index]
            percent, salt = returning(stack, broker_id)
            assert percent == 10
            assert salt
            await until(lambda: returning(stack, broker_id) == (25, salt))
    assert history_of(stack, broker_id) == [("unknown", "up"), ("up", "down"), ("down", "up")]
    [(probes, failures, round_trips)] = stack.database.execute(
        "SELECT sum(probes)::int, sum(failures)::int, sum(round_trips)::int FROM broker_probes"
        " WHERE broker_id = %s AND vantage = 'mooring' AND max_latency_ms >= mean_latency_ms",
        broker_id,
    )
    assert failures >= 2
    assert probes >= failures + round_trips
    assert count(stack, "broker_last_probes", "probed_at > now() - interval '5 s'") >= 1


async def test_a_broker_that_cannot_be_probed_stays_unknown_and_says_why(stack: Stack) -> None:
    async with worker(stack, broker_address_policy="not-local"):
        await until(
            lambda: state_of(stack, stack.default_broker_id) == ("unknown", "NOT_PROBED"),
        )
    assert history_of(stack, stack.default_broker_id) == []


async def test_a_worker_that_only_observes_changes_no_state(stack: Stack) -> None:
    async with worker(stack, health_acts=False):
        await until(lambda: count(stack, "broker_last_probes", "state = 'down'"))
    assert count(stack, "broker_states") == 0


async def test_a_frozen_installation_keeps_its_states(stack: Stack) -> None:
    freeze = "UPDATE health_control SET is_frozen = %s"
    stack.database.execute(freeze, True, role="mooring_operator")
    async with worker(stack):
        await until(lambda: count(stack, "broker_last_probes", "state = 'down'"))
        await until(lambda: count(stack, "broker_probes", "failures > 4"))
        assert count(stack, "broker_states") == 0
        stack.database.execute(freeze, False, role="mooring_operator")
        await until(lambda: count(stack, "broker_states", "state = 'down'"))


async def test_a_broker_is_full_when_its_devices_reach_its_capacity(stack: Stack) -> None:
    broker_id = stack.default_broker_id
    limit = "UPDATE mqtt_broker_config SET capacity = %s WHERE id = %s"
    full = "is_full AND state = 'unknown'"
    async with worker(stack, worker_loops="capacity"):
        stack.database.execute(limit, 2, broker_id)
        await stack.register("one")
        assert count(stack, "broker_states") == 0
        await stack.register("two")
        await until(lambda: count(stack, "broker_states", full) == 1)
        stack.database.execute(limit, 3, broker_id)
        await until(lambda: count(stack, "broker_states", f"NOT ({full})") == 1)
        stack.database.execute(limit, 0, broker_id)
        await until(lambda: count(stack, "broker_states", full) == 1)
        stack.database.execute(limit, None, broker_id)
        await until(lambda: count(stack, "broker_states", "is_full") == 0)


async def test_old_results_are_forgotten(stack: Stack) -> None:
    stack.database.execute(
        "INSERT INTO broker_probes"
        " (broker_id, vantage, begins_at, probes, failures, round_trips)"
        " SELECT %s, 'mooring', now() - make_interval(days => days), 1, 0, 0"
        " FROM generate_series(6, 8) AS days",
        stack.default_broker_id,
    )
    stack.database.execute(
        "INSERT INTO broker_state_history (broker_id, changed_at, was, state, reason)"
        " SELECT %s, now() - make_interval(days => days), 'up', 'down', ''"
        " FROM generate_series(89, 91) AS days",
        stack.default_broker_id,
    )
    async with worker(stack, worker_loops="forgetting"):
        await until(lambda: count(stack, "broker_probes") == 1)
        await until(lambda: count(stack, "broker_state_history") == 1)


@contextmanager
def process_of(stack: Stack, name: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The worker as a process of its own; `name` is its place."""
    config = config_of(stack, health_vantage=name)
    environment = {
        key.upper(): str(value) for key, value in config.model_dump(exclude_unset=True).items()
    }
    environment["BROKER_ADDRESS_POLICY"] = "any"
    process = subprocess.Popen(
        [sys.executable, "-m", "broker_service.worker"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_frozen_prober_is_replaced_within_ten_seconds(stack: Stack) -> None:
    def probes_of(name: str) -> int:
        return count(stack, "broker_last_probes", f"vantage = '{name}'")

    def sum_of(name: str) -> int:
        query = "SELECT sum(probes)::integer FROM broker_probes WHERE vantage = %s"
        [(probes,)] = stack.database.execute(query, name)
        return int(probes)

    with process_of(stack, "first") as first:
        await until(lambda: probes_of("first"))
        with process_of(stack, "second") as second:
            waiting = "process = 'broker_service.worker' AND is_ready"
            await until(lambda: count(stack, "processes", waiting) == 2)
            assert probes_of("second") == 0
            first.send_signal(signal.SIGSTOP)
            begun = asyncio.get_running_loop().time()
            held = "term > 1 AND expires_at > clock_timestamp()"
            await until(lambda: count(stack, "leases", held))
            assert asyncio.get_running_loop().time() - begun < 10
            await until(lambda: probes_of("second"))
            probed = "SELECT max(probed_at) FROM broker_last_probes WHERE vantage = 'first'"
            [before] = stack.database.execute(probed)
            first.send_signal(signal.SIGCONT)
            probes = sum_of("second")
            await until(lambda: sum_of("second") > probes + 10)
            assert stack.database.execute(probed) == [before]
            second.send_signal(signal.SIGTERM)
            await until(lambda: second.poll() is not None)
            assert second.returncode == 0
        # A worker that ends gives up the lease, so another one begins at once.
        await until(lambda: stack.database.execute(probed) > [before], 5.0)


def test_an_unknown_loop_is_refused(stack: Stack) -> None:
    with pytest.raises(SystemExit, match="no loop is called nothing; there are capacity"):
        wanted_loops(config_of(stack, worker_loops="nothing"))
