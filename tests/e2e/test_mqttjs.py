"""The note's agents with their own MQTT client: all of them connect when they start at once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import mqttjs
from tests.supervised import Run

DEVICES = 200
# Mosquitto writes its file 600 times within the five seconds for which an answer waits: on a
# machine that runs other tests beside this one it does not.
pytestmark = pytest.mark.heavy


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run whose Mosquitto is empty."""
    found = Run(tmp_path / "home")
    found.find_mosquitto()
    found.start()
    yield found
    found.end()


def test_every_first_connect_of_a_fleet_succeeds(run: Run) -> None:
    agents = {
        "url": f"http://127.0.0.1:{run.settings['GATEWAY_PORT']}",
        "key": run.credentials()["PROVISIONING_KEY"],
        "count": DEVICES,
    }
    found = json.loads(mqttjs.run(json.dumps(agents)))
    assert found == ["connected"] * DEVICES
