"""Encrypted secrets cannot be read without their key, in another place, or after a change."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_service.encryption import EncryptionKeys, key_id_of, place_of
from broker_service.errors import SecretUnreadable

KEYS = EncryptionKeys(2, {1: b"a" * 32, 2: b"b" * 32})
PLACE = place_of("mqtt_broker_config", "password_encrypted", 7)


@given(st.text())
def test_an_encrypted_secret_is_decrypted(plain: str) -> None:
    kept = KEYS.encrypt(plain, place=PLACE)
    assert KEYS.decrypt(kept, place=PLACE) == plain
    assert key_id_of(kept) == 2
    assert kept != KEYS.encrypt(plain, place=PLACE)


@given(st.text(min_size=1), st.data())
def test_a_changed_byte_is_detected(plain: str, data: st.DataObject) -> None:
    kept = bytearray(KEYS.encrypt(plain, place=PLACE))
    index = data.draw(st.integers(0, len(kept) - 1))
    kept[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SecretUnreadable):
        KEYS.decrypt(bytes(kept), place=PLACE)


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(kept: bytes) -> None:
    with pytest.raises(SecretUnreadable):
        KEYS.decrypt(kept, place=PLACE)


def test_a_secret_is_bound_to_its_place_and_its_key() -> None:
    kept = KEYS.encrypt("x", place=PLACE)
    others = EncryptionKeys(2, {2: b"c" * 32}), EncryptionKeys(1, {1: b"a" * 32})
    for keys, place in ((KEYS, f"{PLACE}0"), *((other, PLACE) for other in others)):
        with pytest.raises(SecretUnreadable) as refused:
            keys.decrypt(kept, place=place)
        assert "x" not in refused.value.message
    # Secrets of an older key can still be decrypted after another one became active.
    old = EncryptionKeys(1, {1: b"a" * 32}).encrypt("old", place=PLACE)
    assert KEYS.decrypt(old, place=PLACE) == "old"


def test_the_keys_are_in_no_repr() -> None:
    assert "bbbb" not in repr(KEYS)


def ring(active: int, *keys: tuple[int, int]) -> str:
    return json.dumps(
        {
            "active": active,
            "keys": [
                {"id": key_id, "secret": base64.b64encode(bytes(size)).decode()}
                for key_id, size in keys
            ],
        }
    )


def test_a_ring_is_read(tmp_path: Path) -> None:
    file = tmp_path / "ring"
    file.write_text(ring(3, (1, 32), (3, 32)))
    assert EncryptionKeys.read(file) == EncryptionKeys(3, {1: bytes(32), 3: bytes(32)})


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"active": 1, "keys": [{"id": 1, "secret": "!"}]}'),
        *(ring(2, (1, 32)), ring(1, (1, 31)), ring(1, (1, 33)), ring(0, (0, 32))),
        ring(2**32, (2**32, 32)),
    ],
)
def test_an_invalid_ring_ends_the_program(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ring"
    file.write_text(content)
    with pytest.raises(SystemExit, match=str(file)):
        EncryptionKeys.read(file)
