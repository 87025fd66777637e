"""`python -m local`, with the real services: a process that ends is started again."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from local.probes import is_listening
from tests.supervised import (
    ACCESS,
    BROKER_WORKER,
    PATIENCE_S,
    SEALER,
    SERVICES,
    WORKER,
    Run,
    descendants,
    named,
    registered,
    until,
)

# How often each process is killed.
TIMES = 7
PORTS = {
    "broker_service": "BROKER_PORT",
    "registry_service": "REGISTRY_PORT",
    "gateway": "GATEWAY_PORT",
    ACCESS: "ACCESS_PORT",
}


@contextmanager
def dead_and_port_taken(run: Run, name: str, setting: str) -> Iterator[None]:
    """Kills the process `name`; until the block ends, another process listens on its port.

    The block begins when the run has reported that the port is taken.
    """
    port, squatters = int(run.settings[setting]), ExitStack()

    def is_taken() -> bool:
        with suppress(OSError):
            squatters.enter_context(socket.create_server(("127.0.0.1", port)))
            return True
        return False

    # The supervisor is frozen, so that the port is taken before it starts the process again.
    run.process.send_signal(signal.SIGSTOP)
    with squatters:
        try:
            os.kill(run.child(name), signal.SIGKILL)
            until(is_taken)
        finally:
            run.process.send_signal(signal.SIGCONT)
        service = "PostgreSQL" if name == "postgres" else name
        expected = f"{service}: {setting}: port {port} is taken by another process\n"
        until(lambda: expected in run.heard())
        yield


def test_a_service_that_dies_is_started_again(later_run: Run) -> None:
    later_run.start()
    services = (*SERVICES, ACCESS, SEALER, WORKER, BROKER_WORKER)
    for service in services:
        before = {name: later_run.child(name) for name in services}
        if service in PORTS:
            with dead_and_port_taken(later_run, service, PORTS[service]):
                assert service == "gateway" or later_run.ask("GET", "/healthz")[0] == 200
                living = descendants(later_run.process.pid)
                assert {name for name in services if named(name, living)} == {*services} - {service}
        else:
            os.kill(before[service], signal.SIGKILL)
        until(
            lambda: bool(
                set(named(service, descendants(later_run.process.pid))) - {before[service]}  # noqa: B023
            )
        )
        until(later_run.is_ready)
        if service in PORTS:
            until(lambda: is_listening(int(later_run.settings[PORTS[service]])))  # noqa: B023
        after = {name: later_run.child(name) for name in services}
        assert {name for name in services if after[name] != before[name]} == {service}
    status, said = later_run.stop()
    assert status == 0
    for service in services:
        assert f"{service} ended with SIGKILL" in said


def test_postgresql_that_dies_is_started_again(later_run: Run) -> None:
    later_run.start()
    family = later_run.family()
    killed: set[int] = set()
    assert registered(later_run) == 201
    with dead_and_port_taken(later_run, "postgres", "POSTGRES_PORT"):
        assert later_run.ask("GET", "/healthz")[0] == 200
    until(lambda: registered(later_run) == 200)
    for _ in range(3):
        [postmaster] = set(named("postgres", descendants(later_run.process.pid))) - killed
        os.kill(postmaster, signal.SIGKILL)
        killed.add(postmaster)
        until(lambda: bool(set(named("postgres", descendants(later_run.process.pid))) - killed))
        # The device is not refused a connection, and gets no 500.
        until(lambda: registered(later_run) == 200)
    services = {name: family.child(name) for name in SERVICES}
    assert {name: later_run.child(name) for name in SERVICES} == services
    status, said = later_run.stop()
    assert status == 0
    assert said.count("mooring: PostgreSQL ended") >= 4
    family.wait_for_the_end()


def test_data_that_postgresql_cannot_use_is_named_until_it_can(later_run: Run) -> None:
    later_run.start()
    data = later_run.home / "postgres" / "data" / "global" / "pg_control"
    kept = data.with_name("kept")
    data.rename(kept)
    os.kill(later_run.child("postgres"), signal.SIGKILL)

    def what_is_down() -> dict[str, str]:
        checks: dict[str, str] = json.loads(later_run.ask("GET", "/readyz")[1])["checks"]
        return checks

    until(lambda: what_is_down().get("registry/database") == "not_serving")
    assert later_run.ask("GET", "/readyz")[0] == 503
    assert registered(later_run) == 503
    log = later_run.home / "logs" / "postgres.log"
    until(lambda: log.read_text().count("could not find the database system") >= 2)
    kept.rename(data)
    until(later_run.is_ready)
    status, said = later_run.stop()
    assert status == 0
    assert "could not find the database system" in said


# The test waits through every pause, even the longest; above, each process ends only once.
@pytest.mark.heavy
def test_processes_that_keep_ending_do_not_end_the_others(later_run: Run) -> None:
    later_run.start()
    services = (*SERVICES, SEALER, WORKER, BROKER_WORKER)
    killed: dict[str, set[int]] = {name: set() for name in services}

    def have_all_died_often() -> bool:
        commands = descendants(later_run.process.pid)
        for name, pids in killed.items():
            for pid in named(name, commands):
                if pid not in pids and len(pids) < TIMES:
                    os.kill(pid, signal.SIGKILL)
                    pids.add(pid)
        assert later_run.process.poll() is None
        return all(len(pids) == TIMES for pids in killed.values())

    until(have_all_died_often, 2 * PATIENCE_S)
    until(later_run.is_ready)
    status, said = later_run.stop()
    assert status == 0
    for name in services:
        assert said.count(f"mooring: {name} ended with SIGKILL") == TIMES
    # Each pause is twice the one before, up to the longest.
    for pause in ("0.2", "0.4", "0.8", "1.6", "3.2", "6.4", "10"):
        assert said.count(f"next start in {pause} s\n") >= len(services), pause
