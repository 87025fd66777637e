"""Secrets: the same input gives the same one, any difference another one, and none is shown."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.credentials import (
    KeyRing,
    hash_of_password,
    hash_of_secret,
    new_salt,
    new_secret,
)
from registry_service.errors import ServerKeyMissing

RING = KeyRing(2, {1: b"a" * 32, 2: b"b" * 32})
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(TEXT, TEXT, TEXT, TEXT)
def test_a_password_depends_on_the_uuid_the_salt_and_the_key(
    uuid: str, salt: str, other_uuid: str, other_salt: str
) -> None:
    password = RING.password_of(1, uuid, salt)
    assert password == RING.password_of(1, uuid, salt)
    assert len(password) == 43
    assert password != RING.password_of(2, uuid, salt)
    if (uuid, salt) != (other_uuid, other_salt):
        assert password != RING.password_of(1, other_uuid, other_salt)


@given(TEXT, TEXT, TEXT)
def test_an_api_key_is_accepted_for_its_own_device_only(
    uuid: str, api_key: str, other: str
) -> None:
    kept = RING.hash_of_api_key(1, uuid, api_key)
    assert RING.is_api_key(1, uuid, api_key, kept)
    assert RING.is_api_key(1, uuid, other, kept) == (other == api_key)
    assert RING.is_api_key(1, other, api_key, kept) == (other == uuid)
    assert not RING.is_api_key(2, uuid, api_key, kept)
    assert kept != RING.password_of(1, uuid, api_key).encode()


def test_a_key_that_is_missing_in_the_ring_is_an_internal_error() -> None:
    with pytest.raises(ServerKeyMissing):
        RING.password_of(3, "a", "b")


def test_random_values_never_repeat() -> None:
    assert len({new_secret("mpk") for _ in range(100)}) == 100
    salts = {new_salt() for _ in range(1_000)}
    assert len(salts) == 1_000
    assert all(len(bytes.fromhex(salt)) == 16 for salt in salts)
    assert new_secret("mpk").startswith("mpk_")
    assert len(hash_of_secret("a")) == 32


def test_the_password_hash_is_the_one_that_brokers_compute() -> None:
    # printf 'saltpassword' | sha256sum
    expected = "13601bda4ea78e55a07b98866d2be6be0744e3866f13c00c811cab608a28f322"
    assert hash_of_password("salt", "password") == expected


def test_a_ring_does_not_show_its_keys() -> None:
    assert "aaaa" not in repr(RING)


def ring_file(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


GOOD = base64.b64encode(b"x" * 32).decode()


def test_a_ring_is_read_completely(tmp_path: Path) -> None:
    content = {"active": 2, "keys": [{"id": 1, "secret": GOOD}, {"id": 2, "secret": GOOD}]}
    ring = KeyRing.read(ring_file(tmp_path / "ring", content))
    assert ring == KeyRing(2, {1: b"x" * 32, 2: b"x" * 32})


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        {"active": 1},
        {"active": 1, "keys": []},
        {"active": 2, "keys": [{"id": 1, "secret": GOOD}]},
        {"active": 1, "keys": [{"id": 1, "secret": "short"}]},
        {"active": 1, "keys": [{"id": 1, "secret": base64.b64encode(b"short").decode()}]},
    ],
)
def test_an_invalid_ring_is_refused_by_name(tmp_path: Path, content: object) -> None:
    file = ring_file(tmp_path / "ring", content)
    with pytest.raises(SystemExit, match=str(file)):
        KeyRing.read(file)


def test_a_missing_ring_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="missing"):
        KeyRing.read(tmp_path / "missing")
