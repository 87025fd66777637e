"""Hashes are recognised by their form, stored unchanged, and never repeated in an error."""

import base64
import contextlib
import hashlib

import bcrypt
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import InvalidInput
from registry_service.password_hashes import (
    HEX,
    MAX_ITERATIONS,
    PasswordHash,
    cheapest,
    read_password_hash,
)
from registry_service.passwords import Password, is_password

SALT = base64.b64encode(b"0123456789ab").decode()
DERIVED = base64.b64encode(bytes(range(64))).decode()
ARGON2 = "$argon2id$v=19$m={m},t={t},p={p}$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43
BCRYPT = "$2b$12$" + "./aB1" * 10 + "xyz"


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (f"$7$101${SALT}${DERIVED}", "mosquitto_pbkdf2"),
        (f"$6${SALT}${DERIVED}", "mosquitto_sha512"),
        (BCRYPT, "bcrypt"),
        (BCRYPT.replace("2b", "2y"), "bcrypt"),
        (BCRYPT.replace("2b", "2a").replace("12", "04"), "bcrypt"),
        (ARGON2.format(m=47_104, t=1, p=1), "argon2id"),
        (ARGON2.format(m=65_536, t=3, p=4), "argon2id"),
        (f"PBKDF2$sha512$100000${SALT}${DERIVED}", "go_auth_pbkdf2"),
        (f"PBKDF2$sha256$600000${SALT}${DERIVED}", "go_auth_pbkdf2"),
        (base64.b64encode(bytes(36)).decode(), "rabbitmq_sha256"),
        (base64.b64encode(bytes(68)).decode(), "rabbitmq_sha512"),
    ],
)
def test_a_hash_that_names_its_algorithm_is_accepted(text: str, algorithm: str) -> None:
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
def test_a_hexadecimal_hash_has_a_separate_salt(algorithm: str, salt: str | None) -> None:
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
        (f"$7${MAX_ITERATIONS['sha512'] + 1}${SALT}${DERIVED}", None, "password_hash"),
        (f"$7$101$${DERIVED}", None, "password_hash"),
        (f"$7$101${SALT}${DERIVED[:-4]}", None, "password_hash"),
        (f"$7$101${SALT}", None, "password_hash"),
        (f"$6${SALT}$ä", None, "password_hash"),
        (f"$5${SALT}${DERIVED}", None, "password_hash"),
        (BCRYPT[:-1], None, "password_hash"),
        (BCRYPT.replace("12", "03"), None, "password_hash"),
        (BCRYPT.replace("12", "13"), None, "password_hash"),
        (BCRYPT.replace("12", "32"), None, "password_hash"),
        (BCRYPT + "\n", None, "password_hash"),
        (BCRYPT.replace("2b", "2"), None, "password_hash"),
        (BCRYPT.replace("2b", "2x"), None, "password_hash"),
        # Hashes of crypt(3), which begin like Mosquitto's.
        ("$6$saltsalt$" + "a" * 86, None, "password_hash"),
        ("$6$rounds=5000$saltsalt$" + "a" * 86, None, "password_hash"),
        ("$5$saltsalt$" + "a" * 43, None, "password_hash"),
        ("$y$j9T$saltsalt$" + "a" * 43, None, "password_hash"),
        (ARGON2.format(m=65_537, t=1, p=1), None, "password_hash"),
        (ARGON2.format(m=65_536, t=4, p=1), None, "password_hash"),
        (ARGON2.format(m=7, t=1, p=1), None, "password_hash"),
        (ARGON2.format(m=4096, t=0, p=1), None, "password_hash"),
        (ARGON2.format(m=4096, t=1, p=17), None, "password_hash"),
        (ARGON2.format(m=2**40, t=1, p=1), None, "password_hash"),
        (ARGON2.format(m=4096, t=1, p=1).replace("2id", "2i"), None, "password_hash"),
        (ARGON2.format(m=4096, t=1, p=1).replace("v=19", "v=16"), None, "password_hash"),
        (ARGON2.format(m=4096, t=1, p=1)[:-1] + "B", None, "password_hash"),
        (f"PBKDF2$sha512$250001${SALT}${DERIVED}", None, "password_hash"),
        (f"PBKDF2$sha256$600001${SALT}${DERIVED}", None, "password_hash"),
        (f"PBKDF2$md5$1${SALT}${DERIVED}", None, "password_hash"),
        (f"PBKDF2$sha512$1$no base64${DERIVED}", None, "password_hash"),
        (f"PBKDF2$sha512$1${SALT}$", None, "password_hash"),
        (base64.b64encode(bytes(35)).decode(), None, "password_hash"),
        (base64.b64encode(bytes(20)).decode(), None, "password_hash"),
    ],
)
def test_a_hash_that_no_broker_would_accept_is_refused(
    text: str, algorithm: str | None, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_password_hash(text, None, algorithm)
    assert caught.value.field == field
    assert not text or text not in caught.value.message


@given(
    st.text(st.sampled_from("$2b67./aB0=\0ä"), max_size=120),
    st.none() | st.text(max_size=5),
    st.none() | st.text(max_size=5) | st.sampled_from(sorted(HEX)),
)
def test_no_text_raises_another_error(text: str, salt: str | None, algorithm: str | None) -> None:
    with contextlib.suppress(InvalidInput):
        assert read_password_hash(text, salt, algorithm).hash == text


B64 = st.binary(min_size=1, max_size=70).map(lambda some: base64.b64encode(some).decode())
BCRYPT64 = st.text(st.sampled_from("./AZaz09eOu"), min_size=53, max_size=53)
# Hashes of each form with random parts.
TEXTS = st.one_of(
    st.builds("$7${}${}${}".format, st.integers(0, 300_000), B64, B64 | st.just(DERIVED)),
    st.builds("$6${}${}".format, B64, B64 | st.just(DERIVED)),
    st.builds("$2{}${:02}${}".format, st.sampled_from("abxy "), st.integers(0, 20), BCRYPT64),
    st.builds(
        "$argon2{}$v={}$m={},t={},p={}${}${}".format,
        st.sampled_from(["id", "i", "d", ""]),
        st.sampled_from([16, 19, 20]),
        st.sampled_from([0, 1, 8, 15, 64, 47_104, 65_536, 2**33]),
        st.integers(0, 5),
        st.integers(0, 20),
        B64.map(lambda text: text.rstrip("=")),
        B64.map(lambda text: text.rstrip("=")),
    ),
    st.builds(
        "PBKDF2${}${}${}${}".format,
        st.sampled_from(["sha256", "sha512", "sha1", "md5"]),
        st.integers(0, 300_000),
        B64,
        B64,
    ),
    st.binary(min_size=34, max_size=70).map(lambda some: base64.b64encode(some).decode()),
)


@settings(max_examples=2000)
@given(TEXTS, st.text(max_size=100))
def test_an_accepted_hash_can_be_verified(text: str, shown: str) -> None:
    try:
        found = read_password_hash(text, None, None)
    except InvalidInput:
        return
    kept = Password(found.algorithm, cheapest(found), found.salt)
    # Verifying at the full cost would take as long as the cost says.
    assert is_password(kept, shown) in (True, False)


@pytest.mark.parametrize("version", ["2a", "2b", "2y"])
@given(bits=st.integers(0, 15))
@settings(max_examples=20, deadline=None)
def test_unused_bits_of_bcrypt_do_not_change_the_result(version: str, bits: int) -> None:
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    settled = bcrypt.gensalt(4)
    text = bcrypt.hashpw(b"secret", settled).decode().replace("2b", version, 1)
    stray = alphabet[alphabet.index(text[28]) | bits]
    last = alphabet[alphabet.index(text[59]) | (bits & 3)]
    found = read_password_hash(text[:28] + stray + text[29:59] + last, None, None)
    kept = Password(found.algorithm, found.hash)
    assert is_password(kept, "secret")
    assert not is_password(kept, "Secret")


def test_hashes_of_other_brokers_are_verified() -> None:
    argon2 = Argon2id(salt=b"0123456789abcdef", length=32, iterations=1, lanes=1, memory_cost=64)
    salt, secret = b"0123456789ab", b"secret"
    texts = [argon2.derive_phc_encoded(secret)]
    for name, length in (("sha256", 32), ("sha512", 64), ("sha512", 32)):
        made = hashlib.pbkdf2_hmac(name, secret, salt, 1000, length)
        parts = base64.b64encode(salt).decode(), base64.b64encode(made).decode()
        texts.append("$".join(("PBKDF2", name, "1000", *parts)))
    for name in ("sha256", "sha512"):
        made = salt[:4] + hashlib.new(name, salt[:4] + secret).digest()
        texts.append(base64.b64encode(made).decode())
    for text in texts:
        found = read_password_hash(text, None, None)
        kept = Password(found.algorithm, found.hash)
        assert is_password(kept, "secret"), text
        for wrong in ("", "Secret", "secret ", "s" * 5000, "é"):
            assert not is_password(kept, wrong)


def test_a_hash_of_an_earlier_import_is_answered_quickly() -> None:
    text = f"$7$10000000${SALT}${DERIVED}"
    assert not is_password(Password("mosquitto_pbkdf2", text), "secret")
