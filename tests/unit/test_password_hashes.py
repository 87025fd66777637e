"""Hashes are known by their form, kept as they are, and never repeated in an error."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput
from registry_service.devices.password_hashes import (
    HEX,
    MAX_ITERATIONS,
    PasswordHash,
    read_password_hash,
)

SALT = base64.b64encode(b"0123456789ab").decode()
DERIVED = base64.b64encode(bytes(range(64))).decode()
BCRYPT = "$2b$12$" + "./aB1" * 10 + "xyz"


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (f"$7$101${SALT}${DERIVED}", "mosquitto_pbkdf2"),
        (f"$6${SALT}${DERIVED}", "mosquitto_sha512"),
        (BCRYPT, "bcrypt"),
        (BCRYPT.replace("2b", "2y"), "bcrypt"),
        (BCRYPT.replace("12", "14"), "bcrypt"),
    ],
)
def test_a_hash_that_says_what_it_is(text: str, algorithm: str) -> None:
    for said in (None, algorithm):
        assert read_password_hash(text, None, said) == PasswordHash(algorithm, text)
    for salt, said, field in (
        ("salt", None, "password_salt"),
        (None, "sha256", "password_algorithm"),
    ):
        with pytest.raises(InvalidInput) as caught:
            read_password_hash(text, salt, said)
        assert caught.value.field == field


@pytest.mark.parametrize("algorithm", sorted(HEX))
@given(salt=st.text("abc123", max_size=20) | st.none())
def test_a_hash_in_hexadecimal_has_its_salt_beside_it(algorithm: str, salt: str | None) -> None:
    text = "aB" * HEX[algorithm]
    assert read_password_hash(text, salt, algorithm) == PasswordHash(algorithm, text, salt or "")


@pytest.mark.parametrize(
    ("text", "algorithm", "field"),
    [
        ("", None, "password_hash"),
        ("secret", None, "password_hash"),
        ("ab" * 32, None, "password_hash"),
        ("ab" * 32, "md5", "password_algorithm"),
        ("ab" * 32, "none", "password_algorithm"),
        ("ab" * 31, "sha256", "password_hash"),
        ("zz" * 32, "sha256", "password_hash"),
        ("ab" * 32 + "\n", "sha256", "password_hash"),
        ("ab" * 300, "sha256", "password_hash"),
        (f"$7$0${SALT}${DERIVED}", None, "password_hash"),
        (f"$7${MAX_ITERATIONS + 1}${SALT}${DERIVED}", None, "password_hash"),
        (f"$7$101$${DERIVED}", None, "password_hash"),
        (f"$7$101${SALT}${DERIVED[:-4]}", None, "password_hash"),
        (f"$7$101${SALT}", None, "password_hash"),
        (f"$6${SALT}$ä", None, "password_hash"),
        (f"$5${SALT}${DERIVED}", None, "password_hash"),
        (BCRYPT[:-1], None, "password_hash"),
        (BCRYPT.replace("12", "03"), None, "password_hash"),
        (BCRYPT.replace("12", "15"), None, "password_hash"),
        (BCRYPT.replace("12", "32"), None, "password_hash"),
        (BCRYPT + "\n", None, "password_hash"),
    ],
)
def test_what_no_broker_would_take_is_refused(text: str, algorithm: str | None, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_password_hash(text, None, algorithm)
    assert caught.value.field == field
    assert not text or text not in caught.value.message


@given(
    st.text(st.sampled_from("$2b67./aB0=\0ä"), max_size=120),
    st.none() | st.text(max_size=5),
    st.none() | st.text(max_size=5) | st.sampled_from(sorted(HEX)),
)
def test_no_text_raises_anything_else(text: str, salt: str | None, algorithm: str | None) -> None:
    with contextlib.suppress(InvalidInput):
        assert read_password_hash(text, salt, algorithm).hash == text
