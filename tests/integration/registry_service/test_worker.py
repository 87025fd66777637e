"""The worker as a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx2
import pytest

from local.postgres import free_port
from tests import REPOSITORY
from tests.stack import Database
from tests.supervised import until

PATIENCE_S = 30.0
LOOPS = ("jobs", "device-counts", "fleet-revocations", "readers", "forgetting")


def started(database: Database, **settings: str) -> "subprocess.Popen[str]":
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SERVER_KEYS")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "registry_service.worker"],
        cwd=REPOSITORY,
        env={
            **environment,
            "DATABASE_URL": database.url("mooring_registry"),
            **settings,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running(database: Database, **settings: str) -> Iterator[str]:
    """Yields the URL of the worker's metrics."""
    port = free_port()
    worker = started(database, METRICS_PORT=str(port), **settings)
    try:
        yield f"http://127.0.0.1:{port}/metrics"
        worker.send_signal(signal.SIGTERM)
        said, _ = worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == 0, said
    finally:
        worker.kill()
        worker.wait()


def succeeded(url: str) -> set[str]:
    """The loops that have succeeded."""
    try:
        lines = httpx2.get(url, timeout=PATIENCE_S).text.splitlines()
    except httpx2.HTTPError:
        return set()
    name = 'mooring_loop_succeeded_timestamp_seconds{loop="'
    return {
        line.removeprefix(name).partition('"')[0]
        for line in lines
        if line.startswith(name) and not line.endswith(" 0.0")
    }


def test_it_runs_the_named_loops_without_secrets_of_other_loops(database: Database) -> None:
    with running(database, WORKER_LOOPS=" , ".join(LOOPS)) as url:
        until(lambda: succeeded(url) == set(LOOPS), PATIENCE_S)
        ready = httpx2.get(url.replace("/metrics", "/readyz"), timeout=PATIENCE_S)
        assert ready.json() == {"status": "ready", "checks": dict.fromkeys(LOOPS, "serving")}


def test_a_loop_that_cannot_work_is_named_by_the_probe(database: Database) -> None:
    what = "FUNCTION end_long_readers(double precision, double precision)"
    database.execute(f"REVOKE ALL ON {what} FROM mooring_registry")
    with running(database, WORKER_LOOPS="readers,jobs") as url:
        found: list[httpx2.Response] = []

        def has_settled() -> bool:
            with suppress(httpx2.HTTPError):
                found.append(httpx2.get(url.replace("/metrics", "/readyz"), timeout=PATIENCE_S))
            checks = found[-1].json()["checks"] if found else {}
            return "starting" not in checks.values() and checks.get("jobs") == "serving"

        until(has_settled, PATIENCE_S)
        assert found[-1].status_code == 503
        assert found[-1].json()["checks"] == {"readers": "ProgrammingError", "jobs": "serving"}
        alive = httpx2.get(url.replace("/metrics", "/healthz"), timeout=PATIENCE_S)
        assert (alive.status_code, alive.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"WORKER_LOOPS": "jobs,job"}, "WORKER_LOOPS: no loop is called job; there are"),
        ({"WORKER_LOOPS": "enforcement"}, "SERVER_KEYS_FILE"),
        ({}, "SERVER_KEYS_FILE"),
        ({"JOB_POLL_S": "never"}, "JOB_POLL_S"),
    ],
)
def test_a_wrong_setting_is_named(database: Database, settings: dict[str, str], said: str) -> None:
    worker = started(database, **settings)
    try:
        output, _ = worker.communicate(timeout=PATIENCE_S)
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode != 0
    assert said in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("registry_service.background", "registry_service.worker"),
        ("registry_service.enforcement", "registry_service.worker"),
        ("registry_service.enforcement.fill", "registry_service.admission.reconciler.fill"),
        ("registry_service.keys", "registry_service.administration.server_keys"),
        ("registry_service.sealing", "registry_service.audit.sealing"),
    ],
)
def test_an_earlier_name_of_a_command_says_the_new_one(old: str, new: str) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", old],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (asked.returncode, asked.stderr) == (1, f"{old} is {new} now\n")
