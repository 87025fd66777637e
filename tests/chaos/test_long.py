"""Each process is killed in turn while devices keep registering."""

import os
import signal

import pytest

from local.postgres import Postgres
from tests.chaos.devices import Devices
from tests.supervised import SERVICES, Run, until

ROUNDS = 2


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_nothing_is_lost_whichever_process_is_killed(run: Run, server: Postgres) -> None:
    devices = Devices(run)
    with devices.arriving():
        for _ in range(ROUNDS):
            for service in SERVICES:
                devices.more(200)
                os.kill(run.child(service), signal.SIGKILL)
            devices.more(200)
            server.stop()
            until(lambda: run.ask("GET", "/readyz")[0] == 503)
            server.start()
    devices.check_nothing_is_lost(run.settings["MOORING_DATABASE_URL"])
