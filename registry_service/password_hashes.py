"""Password hashes of MQTT brokers: the algorithm of a hash, and whether it is complete. Hashes are
stored unchanged, for brokers that read them by SQL. A hash that is accepted can be verified
(`registry_service/passwords.py`), in about a quarter of a second at most; others are refused, with
a text that says what to do instead.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from msgspec import Struct

from chassis.errors import InvalidInput
from chassis.validation import check_text

MAX_CHARACTERS = 512

# The limits allow about 250 ms on a core of a small server: 100,000 iterations of PBKDF2 take 60 to
# 100 ms with SHA-512 and 40 ms with SHA-256, bcrypt with a cost of 12 takes 250 ms, and Argon2
# takes 90 ms for a pass over 64 MiB.
MAX_ITERATIONS: Mapping[str, int] = {"sha512": 250_000, "sha256": 600_000}
MAX_BCRYPT_COST = 12
# In KiB: the memory, and the memory times the number of passes.
MAX_ARGON2_MEMORY = 65_536
MAX_ARGON2_WORK = 200_000
MAX_ARGON2_LANES = 16

# https://mosquitto.org/man/mosquitto_passwd-1.html: $7$ since 2.0, $6$ before.
MOSQUITTO_PBKDF2 = re.compile(r"\$7\$([1-9][0-9]{0,8})\$([^$]+)\$([^$]+)")
MOSQUITTO_SHA512 = re.compile(r"\$6\$([^$]+)\$([^$]+)")
# crypt(3), as in /etc/shadow: the hash has 86 characters of another alphabet, without padding.
CRYPT_SHA512 = re.compile(r"\$6\$(rounds=[0-9]+\$)?[^$]{0,16}\$[./0-9A-Za-z]{86}")
CRYPT = re.compile(r"\$(1|5|6|y|gy|7|md5|sha1)\$.*")
# 22 characters of salt and 31 of hash. The last character of each has more bits than are used.
BCRYPT = re.compile(r"\$2([abxy]?)\$([0-9]{2})\$[./A-Za-z0-9]{53}")
# The form of Mosquitto since 2.1, and of mosquitto-go-auth.
ARGON2 = re.compile(
    r"\$argon2(id|i|d)\$(?:v=([0-9]{1,3})\$)?m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,5})"
    r"\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)
# https://github.com/iegomez/mosquitto-go-auth: pw -h pbkdf2
GO_AUTH = re.compile(r"PBKDF2\$([a-z0-9]+)\$([1-9][0-9]{0,8})\$([^$]+)\$([^$]+)")
# https://www.rabbitmq.com/docs/passwords: 4 bytes of salt and the hash, in base64.
RABBITMQ: Mapping[int, str] = {4 + 32: "rabbitmq_sha256", 4 + 64: "rabbitmq_sha512"}
SHA512_BYTES = 64

# Hashes of EMQX and others: hex, with the salt in a column of its own. The length of each
# algorithm's hash in bytes.
HEX: Mapping[str, int] = {
    "sha256": 32,  # over salt and password
    "sha256_suffix": 32,  # over password and salt
    "pbkdf2_sha256": 32,
    "pbkdf2_sha512": 64,
}
SELF_CONTAINED = (
    *("mosquitto_pbkdf2", "mosquitto_sha512", "bcrypt", "argon2id"),
    *("go_auth_pbkdf2", "rabbitmq_sha256", "rabbitmq_sha512"),
)
NONE = "none"
ANEW = "import the device without a username and hash, and let it register for a new password"


class PasswordHash(Struct, frozen=True):
    """The stored columns. `salt` is empty if the hash contains its own."""

    algorithm: str
    hash: str = ""
    salt: str = ""


def read_password_hash(text: str, salt: str | None, algorithm: str | None) -> PasswordHash:
    """Raises `InvalidInput`, which names the column and does not contain the hash."""
    check_text("password_hash", text, shortest=1, longest=MAX_CHARACTERS)
    found = next((name for form in _FORMS if (name := form(text)) is not None), None)
    if found is None:
        return _hex(text, salt or "", algorithm)
    if salt is not None:
        raise InvalidInput(f"a {found} hash holds its own salt", field="password_salt")
    if algorithm not in (None, found):
        raise InvalidInput(f"the hash is {found}", field="password_algorithm")
    return PasswordHash(found, text)


def cheapest(found: PasswordHash) -> str:
    """The same hash with the lowest cost of its algorithm."""
    text = found.hash
    match found.algorithm:
        case "mosquitto_pbkdf2":
            return re.sub(r"^\$7\$[0-9]+", "$7$1", text)
        case "go_auth_pbkdf2":
            return re.sub(r"^(PBKDF2\$[a-z0-9]+)\$[0-9]+", r"\1$1", text)
        case "bcrypt":
            return f"{text[:4]}04{text[6:]}"
        case "argon2id":
            lanes = ARGON2.sub(r"\5", text)
            return re.sub(r"m=[0-9]+,t=[0-9]+", f"m={8 * int(lanes)},t=1", text)
    return text


def _hex(text: str, salt: str, algorithm: str | None) -> PasswordHash:
    check_text("password_salt", salt, longest=MAX_CHARACTERS)
    if algorithm is None:
        raise _refused(f"is not a known form of a hash: {ANEW}")
    if algorithm not in HEX:
        allowed = ", ".join((*HEX, *SELF_CONTAINED))
        raise InvalidInput(f"must be one of {allowed}", field="password_algorithm")
    if not re.fullmatch(f"[0-9A-Fa-f]{{{2 * HEX[algorithm]}}}", text):
        raise _refused(f"must be {HEX[algorithm]} bytes in hexadecimal for {algorithm}")
    return PasswordHash(algorithm, text, salt)


def _mosquitto(text: str) -> str | None:
    if parts := MOSQUITTO_PBKDF2.fullmatch(text):
        _check_iterations("sha512", int(parts[1]))
        if not _bytes_in(parts[2]) or _bytes_in(parts[3]) != SHA512_BYTES:
            raise _refused("is not a complete hash of Mosquitto's ($7$iterations$salt$hash)")
        return "mosquitto_pbkdf2"
    if CRYPT_SHA512.fullmatch(text):
        raise _refused(
            "is a hash of crypt(3), as in /etc/shadow, and not one of Mosquitto's, which ends "
            f"in ==: {ANEW}"
        )
    if parts := MOSQUITTO_SHA512.fullmatch(text):
        if not _bytes_in(parts[1]) or _bytes_in(parts[2]) != SHA512_BYTES:
            raise _refused("is not a complete hash of Mosquitto's ($6$salt$hash)")
        return "mosquitto_sha512"
    if CRYPT.fullmatch(text):
        raise _refused(f"is a hash of crypt(3) that cannot be verified here: {ANEW}")
    return None


def _bcrypt(text: str) -> str | None:
    if not text.startswith("$2"):
        return None
    parts = BCRYPT.fullmatch(text)
    if parts is None:
        raise _refused("is not a complete bcrypt hash")
    if parts[1] not in ("a", "b", "y"):
        # These versions hash passwords with characters beyond ASCII differently.
        raise _refused(f"is of a faulty version of bcrypt ($2$ or $2x$): {ANEW}")
    if not 4 <= int(parts[2]) <= MAX_BCRYPT_COST:
        raise _refused(f"must have a cost of 4 to {MAX_BCRYPT_COST}: {ANEW}")
    return "bcrypt"


def _argon2(text: str) -> str | None:
    if not text.startswith("$argon2"):
        return None
    parts = ARGON2.fullmatch(text)
    if parts is None:
        raise _refused("is not a complete Argon2 hash")
    if parts[1] != "id" or parts[2] != "19":
        raise _refused(f"must be argon2id of version 19 (v=19): {ANEW}")
    memory, passes, lanes = int(parts[3]), int(parts[4]), int(parts[5])
    if not (1 <= lanes <= MAX_ARGON2_LANES and passes >= 1 and memory >= 8 * lanes):
        raise _refused("has parameters that Argon2 does not take")
    if memory > MAX_ARGON2_MEMORY or memory * passes > MAX_ARGON2_WORK:
        raise _refused(
            f"takes too long to verify: m may be {MAX_ARGON2_MEMORY}, and m times t "
            f"{MAX_ARGON2_WORK}: {ANEW}"
        )
    salt, digest = _unpadded(parts[6]), _unpadded(parts[7])
    if len(salt) < 8 or not 16 <= len(digest) <= 64:
        raise _refused("has a salt or a hash of another length than brokers make")
    return "argon2id"


def _go_auth(text: str) -> str | None:
    if not text.startswith("PBKDF2$"):
        return None
    parts = GO_AUTH.fullmatch(text)
    if parts is None:
        raise _refused("is not a complete PBKDF2 hash (PBKDF2$sha512$iterations$salt$hash)")
    if parts[1] not in MAX_ITERATIONS:
        raise _refused(f"must be made with sha512 or sha256: {ANEW}")
    _check_iterations(parts[1], int(parts[2]))
    if not _bytes_in(parts[3]):
        raise _refused(f"must have its salt in base64 (go-auth's default): {ANEW}")
    if not 16 <= _bytes_in(parts[4]) <= 64:
        raise _refused("must have 16 to 64 bytes of hash in base64")
    return "go_auth_pbkdf2"


def _rabbitmq(text: str) -> str | None:
    return RABBITMQ.get(_bytes_in(text))


def _check_iterations(digest: str, iterations: int) -> None:
    if iterations > MAX_ITERATIONS[digest]:
        raise _refused(
            f"takes too long to verify: {digest} may have {MAX_ITERATIONS[digest]} iterations: "
            f"{ANEW}"
        )


def _refused(detail: str) -> InvalidInput:
    return InvalidInput(detail, field="password_hash")


def _bytes_in(text: str) -> int:
    """How many bytes a base64 text holds; 0 if it is no base64."""
    try:
        return len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return 0


def _unpadded(text: str) -> bytes:
    """The bytes of a base64 text without padding; empty if it is invalid or its unused bits are not
    0.
    """
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return found if base64.b64encode(found).rstrip(b"=") == text.encode() else b""


# Each function returns the algorithm of a hash in its form, or None for a hash in another form.
_FORMS: tuple[Callable[[str], str | None], ...] = (
    _mosquitto,
    _bcrypt,
    _argon2,
    _go_auth,
    _rabbitmq,
)
