"""The brokers that tests start have the versions that docs/brokers/README.md names."""

import re
import subprocess

import pytest

from tests import debian
from tests.broker_versions import MOSQUITTO, RABBITMQ, Version
from tests.rabbitmq import SERVER


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(one, id=one.number, marks=() if one.is_everyday else pytest.mark.heavy)
        for one in MOSQUITTO
    ],
)
def test_mosquitto_says_the_version(version: Version) -> None:
    program, environment = debian.program("mosquitto", version.suite)
    # The exit status differs between versions.
    said = subprocess.run(
        [program, "-h"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    [found] = re.findall(r"^mosquitto version (\S+)$", said.stdout, flags=re.MULTILINE)
    assert version.admits(found), found


@pytest.mark.heavy
@pytest.mark.parametrize("version", RABBITMQ, ids=lambda version: version.number)
def test_rabbitmq_is_installed_as_the_version(version: Version) -> None:
    root, _ = debian.tree("rabbitmq-server", SERVER, version.suite)
    [server] = root.glob(SERVER)
    found = server.name.removeprefix("rabbitmq_server-")
    assert version.admits(found), found
