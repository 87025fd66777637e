"""Processes are killed or stopped while devices register: answers are as promised."""

import os
import signal

import psycopg

from local.postgres import Postgres
from tests.chaos.devices import Devices
from tests.supervised import Run, until


def test_the_broker_service_is_killed_and_devices_go_on_registering(run: Run) -> None:
    devices = Devices(run)
    with devices.arriving():
        devices.more(50)
        for _ in range(2):
            os.kill(run.child("broker_service"), signal.SIGKILL)
            devices.more(100)
    # The registry remembers the default, so it refused no device.
    assert set(devices.statuses) <= {200, 201}
    assert set(devices.sources) <= {"default", "default stale"}
    devices.check_nothing_is_lost(run.settings["MOORING_DATABASE_URL"])


def test_the_registry_service_is_killed_and_nothing_is_lost(run: Run) -> None:
    devices = Devices(run)
    with devices.arriving():
        for _ in range(2):
            devices.more(50)
            os.kill(run.child("registry_service"), signal.SIGKILL)
        devices.more(50)
    devices.check_nothing_is_lost(run.settings["MOORING_DATABASE_URL"])


def test_the_broker_service_hangs_and_devices_go_on_registering(run: Run) -> None:
    devices = Devices(run)
    with devices.arriving():
        devices.more(20)
        frozen = run.child("broker_service")
        os.kill(frozen, signal.SIGSTOP)
        devices.more(8)
        # Until now the database proved that the remembered broker is current; now it cannot.
        with psycopg.connect(run.settings["MOORING_DATABASE_URL"]) as connection:
            connection.execute("UPDATE mqtt_broker_config SET description = 'changed'")
        devices.more(8)
        os.kill(frozen, signal.SIGCONT)
        devices.more(20)
    assert set(devices.statuses) <= {200, 201}
    assert devices.sources["default stale"] > 0
    devices.check_nothing_is_lost(run.settings["MOORING_DATABASE_URL"])


def test_postgresql_stops_and_starts_and_nothing_is_lost(run: Run, server: Postgres) -> None:
    devices = Devices(run)
    with devices.arriving():
        for _ in range(2):
            devices.more(50)
            server.stop()
            refused = devices.statuses[503]
            until(lambda: devices.statuses[503] > refused + 4)  # noqa: B023
            assert run.ask("GET", "/healthz")[0] == 200
            until(lambda: run.ask("GET", "/readyz")[0] == 503)
            server.start()
            devices.more(50)
            until(run.is_ready)
    devices.check_nothing_is_lost(run.settings["MOORING_DATABASE_URL"])
