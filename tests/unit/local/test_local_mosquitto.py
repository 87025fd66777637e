"""Finds an installed Mosquitto, and checks whether its file accepts Mooring's login."""

import hashlib
import json
from base64 import b64encode
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
    """The file with Mooring's login changed."""
    document = json.loads(FILE)
    document["clients"][0] |= changes
    return json.dumps(document).encode()


def test_a_file_with_the_login_admits_it() -> None:
    assert admits(FILE.encode(), LOGIN)
    assert admits(changed(), LOGIN)
    assert not admits(FILE.encode(), Login("mooring-control", "q" * 32))
    assert not admits(FILE.encode(), Login("another", LOGIN.password))


def test_a_file_of_2_1_admits_it() -> None:
    ours = json.loads(FILE)["clients"][0]
    written = f"$7${ours['iterations']}${ours['salt']}${ours['password']}"
    salt = b64encode(bytes(range(64))).decode()
    longer = hashlib.pbkdf2_hmac("sha512", LOGIN.password.encode(), bytes(range(64)), 1000)
    for encoded in (written, f"$7$1000${salt}${b64encode(longer).decode()}"):
        file = changed(encoded_password=encoded, password="", salt="", iterations=0)
        assert admits(file, LOGIN)
        assert not admits(file, Login(LOGIN.username, "another"))
        assert not admits(changed(encoded_password=encoded[:-4]), LOGIN)


def test_an_incomplete_file_does_not() -> None:
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
def test_a_file_without_the_login_does_not(contents: bytes) -> None:
    assert not admits(contents, LOGIN)


@pytest.mark.parametrize(
    ("program", "plugin"),
    [
        ("usr/sbin", "usr/lib/x86_64-linux-gnu"),
        ("usr/sbin", "usr/lib64"),
        ("usr/local/bin", "usr/local/lib"),
    ],
)
def test_an_installed_mosquitto_is_found(
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
    # As before Mosquitto 2, without the plugin.
    assert installed() is None
    library.touch()
    assert installed() == Installed(broker, library)
