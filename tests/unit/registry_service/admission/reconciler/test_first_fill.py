"""The file with which a Mosquitto's dynamic security plugin first starts."""

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from registry_service.admission.reconciler.dynamic_security import Actual, Wanted
from registry_service.admission.reconciler.first_fill import can_hold, first_fill, write
from registry_service.admission.reconciler.listings import Reading
from registry_service.admission.reconciler.planning import Plan, plan
from registry_service.errors import UsernameReserved
from registry_service.password_hashes import PasswordHash, read_password_hash
from tests.unit.registry_service.admission.reconciler.test_dynamic_security import (
    FLEETS,
    HASH,
    device,
)

DIGEST = base64.b64encode(bytes(64)).decode()
MADE = f"$7$250$c2FsdHNhbHRzYWx0${DIGEST}"


def filled(wanted: Iterable[Wanted]) -> dict[str, Any]:
    salts = count()
    text = first_fill(
        wanted,
        control_username="login",
        control_password="of the login",
        new_salt=lambda: next(salts).to_bytes(12, "big"),
    )
    document: dict[str, Any] = json.loads(text)
    return document


def held_by(document: dict[str, Any]) -> Actual:
    """The clients, roles and groups that the plugin would list after reading the file."""
    reading = Reading()
    for name, listed in (("listClients", "clients"), ("listRoles", "roles")):
        items = document[listed]
        reading.take(name, {"totalCount": len(items), listed: items})
    return reading.actual()


@given(FLEETS)
def test_after_the_first_fill_there_is_nothing_to_do(fleet: list[Wanted]) -> None:
    assert plan(fleet, held_by(filled(fleet))) == Plan()


def test_passwords_are_hashed_as_the_plugin_does_it() -> None:
    document = filled([device("b", "two"), device("a", "one")])
    assert [one["username"] for one in document["clients"]] == ["login", "a", "b"]
    passwords = ("of the login", "one", "two")
    salts = set()
    for client, password in zip(document["clients"], passwords, strict=True):
        salt = base64.b64decode(client["salt"])
        made = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, client["iterations"])
        assert base64.b64decode(client["password"]) == made
        assert len(salt) == 12
        salts.add(salt)
    assert len(salts) == 3
    assert "of the login" not in json.dumps(document)


def test_by_default_clients_may_only_unsubscribe() -> None:
    document = filled([])
    allowed = [kind for kind, is_allowed in document["defaultACLAccess"].items() if is_allowed]
    assert allowed == ["unsubscribe"]
    [role] = document["roles"]
    assert {acl["topic"] for acl in role["acls"]} == {"$CONTROL/dynamic-security/#"}


@pytest.mark.parametrize(
    ("text", "salt", "algorithm", "is_held"),
    [
        (MADE, None, None, True),
        # The plugin accepts only salts of 12 bytes.
        (f"$7$250$c2FsdA==${DIGEST}", None, None, False),
        ("$2b$10$" + "a" * 53, None, None, False),
        ("0" * 64, "salt", "sha256", False),
    ],
)
def test_a_hash_is_used_if_the_plugin_can_read_it(
    text: str, salt: str | None, algorithm: str | None, is_held: bool
) -> None:
    hashed = read_password_hash(text, salt, algorithm)
    wanted = Wanted("a", hashed, "imported", device("a").grants)
    assert can_hold(wanted) == is_held
    document = filled([wanted])
    assert len(document["clients"]) == 1 + is_held
    if is_held:
        client = document["clients"][1]
        assert (client["iterations"], client["salt"]) == (250, "c2FsdHNhbHRzYWx0")
        assert client["password"] == DIGEST
    assert can_hold(Wanted("a", HASH, "imported", device("a").grants))
    assert not can_hold(Wanted("a", PasswordHash("none"), "imported", device("a").grants))


def test_no_client_has_the_name_of_the_login() -> None:
    with pytest.raises(UsernameReserved):
        filled([device("login")])


def test_a_file_is_written_completely_for_its_owner_and_replaces_no_other(tmp_path: Path) -> None:
    file = tmp_path / "dynamic-security.json"
    before = os.umask(0)
    try:
        write(file, "first")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write(file, "second")
    assert file.read_text() == "first"
    file.chmod(0o644)
    write(file, "third ü", replaces=True)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("third ü", 0o600)
    with pytest.raises(LookupError, match="no-such-user"):
        write(file, "fourth", owner="no-such-user", replaces=True)
    assert file.read_text() == "third ü"
    assert [one.name for one in tmp_path.iterdir()] == [file.name]
