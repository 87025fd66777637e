"""Devices register for a Mosquitto while the process that manages it is killed or frozen."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.held import MOST_S, STALLED_S
from tests.e2e.test_mosquitto import is_let_in
from tests.supervised import WORKER, Run, until

DEVICES = 100
# So many are registered when the process is killed or frozen.
BEFORE = 30
# How long a registration takes that waits for no broker, among many on a busy machine.
AT_ONCE_S = 1.0
pytestmark = pytest.mark.heavy


class Registered(NamedTuple):
    """`began_s` and `took_s` are of the monotonic clock."""

    began_s: float
    took_s: float
    mqtt: dict[str, Any]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    found = Run(tmp_path / "home")
    found.find_mosquitto()
    found.start()
    yield found
    found.end()


def registered(run: Run, key: str, uuid: str) -> Registered:
    body = {"uuid": uuid, "deviceName": uuid, "deviceType": "t", "deviceApiKey": "test-api-key"}
    began_s = time.monotonic()
    status, text = run.ask("POST", "/api/v1/device/register", key, body)
    assert status == 201, text
    return Registered(began_s, time.monotonic() - began_s, json.loads(text)["mqtt"])


def all_registered(run: Run, after_some: Callable[[], None]) -> list[Registered]:
    """Registers devices, ten at a time; calls `after_some` when `BEFORE` are registered."""
    key = run.credentials()["PROVISIONING_KEY"]
    found: list[Registered] = []
    with ThreadPoolExecutor(10) as pool:
        waiting: list[Future[Registered]] = [
            pool.submit(registered, run, key, f"d{number}") for number in range(DEVICES)
        ]
        for one in as_completed(waiting):
            found.append(one.result())
            if len(found) == BEFORE:
                after_some()
    return found


def demand_bounded(found: list[Registered]) -> None:
    assert max(one.took_s for one in found) < MOST_S + AT_ONCE_S
    late = [one.mqtt for one in found if "ready" in one.mqtt]
    assert all(mqtt["ready"] is False and 1 <= mqtt["refreshAfter"] <= 5 for mqtt in late)


def problem_of(run: Run) -> str:
    token = run.credentials()["ADMIN_TOKEN"]
    status, text = run.ask("GET", "/api/v1/brokers/1/enforcement", token)
    assert status == 200, text
    return str(json.loads(text)["problem"])


def until_all_are_let_in(found: list[Registered]) -> None:
    for one in found:
        until(partial(lets_in, one.mqtt))


def lets_in(mqtt: dict[str, Any]) -> bool:
    return asyncio.run(is_let_in(mqtt))


def test_no_registration_is_lost_while_enforcement_is_killed(run: Run) -> None:
    found = all_registered(run, lambda: os.kill(run.child(WORKER), signal.SIGKILL))
    demand_bounded(found)
    until_all_are_let_in(found)


def test_no_registration_is_lost_while_enforcement_is_frozen(run: Run) -> None:
    frozen = run.child(WORKER)
    frozen_at: list[float] = []

    def freeze() -> None:
        os.kill(frozen, signal.SIGSTOP)
        frozen_at.append(time.monotonic())

    try:
        found = all_registered(run, freeze)
        demand_bounded(found)
        frozen_for = [one for one in found if one.began_s > frozen_at[0]]
        assert frozen_for
        # The broker makes no progress, so answers wait for the shorter time.
        assert max(one.took_s for one in frozen_for) < STALLED_S + AT_ONCE_S
        assert all(one.mqtt["ready"] is False for one in frozen_for)
        # No answer waits where no process holds the lease.
        until(lambda: "no process manages" in problem_of(run))
        found.append(registered(run, run.credentials()["PROVISIONING_KEY"], "last"))
        assert found[-1].took_s < AT_ONCE_S
        assert found[-1].mqtt["ready"] is False
    finally:
        os.kill(frozen, signal.SIGCONT)
    until_all_are_let_in(found)
