"""Password hashes as MQTT brokers keep them: which algorithm made one, and whether it is whole.

They are kept as they are, for brokers that read them by SQL: nothing here knows a password.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from msgspec import Struct

from chassis.errors import InvalidInput
from chassis.validation import check_text

MAX_CHARACTERS = 512
# More than any broker can be meant to compute for a connection.
MAX_ITERATIONS = 10_000_000

# https://mosquitto.org/man/mosquitto_passwd-1.html: since 2.0, and before.
MOSQUITTO_PBKDF2 = re.compile(r"\$7\$([1-9][0-9]{0,7})\$([^$]+)\$([^$]+)")
MOSQUITTO_SHA512 = re.compile(r"\$6\$([^$]+)\$([^$]+)")
# The cost is a power of two; 22 characters of salt and 31 of hash follow. A cost of 14 takes a
# second to compute, and no broker waits for more than a few.
BCRYPT = re.compile(r"\$2[abxy]?\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}")
SHA512_BYTES = 64

# Those of EMQX and others: hex, with the salt beside it. By the name of the algorithm, the hash's
# length in bytes.
HEX: Mapping[str, int] = {
    "sha256": 32,  # over salt and password
    "sha256_suffix": 32,  # over password and salt
    "pbkdf2_sha256": 32,
    "pbkdf2_sha512": 64,
}
NONE = "none"


class PasswordHash(Struct, frozen=True):
    """What is kept. `salt` is empty where the hash holds its own."""

    algorithm: str
    hash: str = ""
    salt: str = ""


def read_password_hash(text: str, salt: str | None, algorithm: str | None) -> PasswordHash:
    """Raises `InvalidInput`, which names the column and holds nothing of the hash."""
    check_text("password_hash", text, shortest=1, longest=MAX_CHARACTERS)
    found = next((name for name, is_one in _SELF_CONTAINED.items() if is_one(text)), None)
    if found is None:
        return _hex(text, salt or "", algorithm)
    if salt is not None:
        raise InvalidInput(f"a {found} hash holds its own salt", field="password_salt")
    if algorithm not in (None, found):
        raise InvalidInput(f"the hash is {found}", field="password_algorithm")
    return PasswordHash(found, text)


def _hex(text: str, salt: str, algorithm: str | None) -> PasswordHash:
    check_text("password_salt", salt, longest=MAX_CHARACTERS)
    if algorithm is None:
        raise InvalidInput("is a hash of no kind that is known by its form", field="password_hash")
    if algorithm not in HEX:
        allowed = ", ".join((*HEX, *_SELF_CONTAINED))
        raise InvalidInput(f"must be one of {allowed}", field="password_algorithm")
    if not re.fullmatch(f"[0-9A-Fa-f]{{{2 * HEX[algorithm]}}}", text):
        raise InvalidInput(
            f"must be {HEX[algorithm]} bytes in hexadecimal for {algorithm}", field="password_hash"
        )
    return PasswordHash(algorithm, text, salt)


def _is_mosquitto_pbkdf2(text: str) -> bool:
    parts = MOSQUITTO_PBKDF2.fullmatch(text)
    return (
        parts is not None
        and int(parts[1]) <= MAX_ITERATIONS
        and _bytes_in(parts[2]) > 0
        and _bytes_in(parts[3]) == SHA512_BYTES
    )


def _is_mosquitto_sha512(text: str) -> bool:
    parts = MOSQUITTO_SHA512.fullmatch(text)
    return parts is not None and _bytes_in(parts[1]) > 0 and _bytes_in(parts[2]) == SHA512_BYTES


def _is_bcrypt(text: str) -> bool:
    return BCRYPT.fullmatch(text) is not None


def _bytes_in(text: str) -> int:
    """How many bytes the base64 holds; 0 for what is none."""
    try:
        return len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return 0


_SELF_CONTAINED: Mapping[str, Callable[[str], bool]] = {
    "mosquitto_pbkdf2": _is_mosquitto_pbkdf2,
    "mosquitto_sha512": _is_mosquitto_sha512,
    "bcrypt": _is_bcrypt,
}
