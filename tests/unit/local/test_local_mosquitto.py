"""Whether a Mosquitto is there to be started, and whether its file lets us in."""

import json
from pathlib import Path
from typing import Any

import pytest

from local.mosquitto import Installed, Login, admits, installed
from registry_service.admission.reconciler.first_fill import first_fill
from tests.unit.registry_service.admission.reconciler.test_dynamic_security import device

LOGIN = Login("mooring-control", "p" * 32)
FILE = first_fill(
    [device("a"), device("b")], control_username=LOGIN.username, control_password=LOGIN.password
)


def changed(**changes: Any) -> bytes:
    """The file with our login changed."""
    document = json.loads(FILE)
    document["clients"][0] |= changes
    return json.dumps(document).encode()


def test_a_file_that_names_us_lets_us_in() -> None:
    assert admits(FILE.encode(), LOGIN)
    assert admits(changed(), LOGIN)
    assert not admits(FILE.encode(), Login("mooring-control", "q" * 32))
    assert not admits(FILE.encode(), Login("another", LOGIN.password))


def test_a_file_that_was_cut_off_does_not() -> None:
    for end in range(len(FILE.rstrip())):
        assert not admits(FILE[:end].encode(), LOGIN), end


@pytest.mark.parametrize(
    "contents",
    [
        *(b"[]", b"{}", b"null", b'{"clients": {}}', b'{"clients": [7]}', b'{"clients": []}'),
        *(b"\xff", b"\0" * 4096),
        changed(disabled=True),
        changed(username="another"),
        *(changed(password=value) for value in ("", "=", "é", None, 7)),
        *(changed(iterations=value) for value in (0, -1, 2**40, "1")),
    ],
)
def test_nor_does_one_without_us(contents: bytes) -> None:
    assert not admits(contents, LOGIN)


@pytest.mark.parametrize(
    ("program", "plugin"),
    [
        ("usr/sbin", "usr/lib/x86_64-linux-gnu"),
        ("usr/sbin", "usr/lib64"),
        ("usr/local/bin", "usr/local/lib"),
    ],
)
def test_what_is_installed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, plugin: str
) -> None:
    monkeypatch.setattr("local.mosquitto.ADMINISTRATION", str(tmp_path / "usr" / "sbin"))
    monkeypatch.setenv("PATH", str(tmp_path / "usr" / "local" / "bin"))
    assert installed() is None
    broker = tmp_path / program / "mosquitto"
    library = tmp_path / plugin / "mosquitto_dynamic_security.so"
    for file in (broker, library):
        file.parent.mkdir(parents=True)
    broker.touch(mode=0o755)
    # As before Mosquitto 2.
    assert installed() is None
    library.touch()
    assert installed() == Installed(broker, library)
