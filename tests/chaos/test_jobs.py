"""A process that runs a job is killed in the middle: another one continues the job."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg

from tests.stack import PATIENCE_S, Database

# More than the largest chunk.
DEVICES = 25_000
POLL_S = 0.02
SEED = """
WITH broker AS (
    INSERT INTO mqtt_broker_config (name, host, port)
    VALUES ('old', 'h', 1883), ('new', 'h', 1883)
), fleet AS (
    INSERT INTO fleets (id, name) VALUES ('demo', 'Demo')
)
INSERT INTO provisioning_keys (key_hash, fleet_id) VALUES ('', 'demo')
"""
FILL = """
INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_broker_id, mqtt_username,
                     mqtt_password_hash, credential_salt, credential_key_id, api_key_hash,
                     provisioned_by_key_id)
SELECT 'device-' || n, 'Test', 'pi', 'demo', CASE WHEN n %% 2 = 0 THEN 1 END, n, '', '', 1, '', id
FROM generate_series(1, %s) AS n, provisioning_keys
"""
START = """
INSERT INTO jobs (kind, state, mqtt_broker_id, filter, last_number, actor, actor_id)
SELECT 'assign', 'running', 2, '{}', max(id), 'tests', '' FROM devices
"""
UNDO = "UPDATE jobs SET state = 'running', is_undo = true, reached = 0"
PINS = "SELECT mqtt_broker_id, count(*) FROM devices GROUP BY 1 ORDER BY 1"
WAITING = "SELECT pid FROM pg_locks WHERE NOT granted"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


class Workers:
    """Processes that run jobs, by their ids."""

    def __init__(self, database: Database, ends: ExitStack) -> None:
        self._database = database
        self._ends = ends
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "registry_service.worker"],
            env={
                **os.environ,
                "DATABASE_URL": self._database.url("mooring_registry"),
                "WORKER_LOOPS": "jobs",
                "JOB_POLL_S": "0.05",
                "JOB_LEASE_S": "0.5",
            },
            stdout=subprocess.DEVNULL,
        )
        self._running[process.pid] = process
        self._ends.callback(process.wait)
        self._ends.callback(process.kill)

    def kill_the_one_that_works(self) -> None:
        [(holder,)] = self._database.execute("SELECT holder FROM leases WHERE name = 'jobs'")
        process = self._running.pop(int(holder.rpartition("/")[2]))
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
            # A process that was started a moment ago may not handle the signal yet.
            assert process.wait(PATIENCE_S) in (0, -signal.SIGTERM)


@contextmanager
def held(database: Database, device_id: int) -> Iterator[None]:
    """Locks the row of the device, so that processes wait for it."""
    with psycopg.connect(database.url("mooring")) as connection:
        connection.execute("SELECT FROM devices WHERE id = %s FOR UPDATE", [device_id])
        yield


def test_a_job_continues_after_its_process_was_killed_in_a_chunk(
    database: Database,
) -> None:
    database.execute(SEED)
    database.execute(FILL, DEVICES)
    before = database.execute(PINS)

    def state() -> tuple[str, int]:
        [(state, reached)] = database.execute("SELECT state, reached FROM jobs")
        return state, reached

    with ExitStack() as ends:
        workers = Workers(database, ends)
        workers.start()
        workers.start()
        for statement, outcome, pins in (
            (START, "moved", [(2, DEVICES)]),
            (UNDO, "undone", before),
        ):
            with held(database, DEVICES):
                database.execute(statement)
                until(lambda: state()[1] > 0)
                until(lambda: database.execute(WAITING))
                workers.kill_the_one_that_works()
                assert 0 < state()[1] < DEVICES
            workers.start()
            until(lambda: state()[0] == "done")
            assert database.execute("SELECT outcomes FROM jobs") == [({outcome: DEVICES},)]
            assert database.execute(PINS) == pins
            rows = "SELECT count(DISTINCT device_id) FROM job_rows WHERE outcome = %s"
            assert database.execute(rows, outcome) == [(DEVICES,)]
        workers.stop()
    finished = database.execute("SELECT action, actor FROM audit_log")
    assert finished == [("job.finish", "tests")] * 2
