"""Checks passwords against hashes. Mooring's passwords are random secrets of 256 bits, and hashing
one takes a microsecond. Imported hashes are stored unchanged, and may be slow;
registry_service/password_hashes.py says which hashes can be imported.
"""

import hashlib
import hmac
from base64 import b64decode

import bcrypt
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec import Struct

SLOW = frozenset({"bcrypt", "mosquitto_pbkdf2", "go_auth_pbkdf2", "argon2id"})
# bcrypt's base64. The last character of the salt uses 2 of its 6 bits, and that of the hash uses 4.
BCRYPT_ALPHABET = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
BCRYPT_SALT, BCRYPT_HASH = 28, 59
SALT_BYTES = 4
# More iterations take longer than any broker waits.
MAX_ITERATIONS = 2_500_000


class Password(Struct, frozen=True):
    """The stored columns of a password. `salt` is empty if the hash contains its own."""

    algorithm: str
    hash: str
    salt: str = ""


def is_slow(kept: Password) -> bool:
    """Whether checking takes milliseconds, and must run in a thread."""
    return kept.algorithm in SLOW


def is_password(kept: Password, shown: str) -> bool:
    """Whether `shown` is the password. Compares in constant time; False for a hash that cannot be
    checked.

    A hash of `pbkdf2_sha256` or `pbkdf2_sha512` cannot be checked, because the number of iterations
    is only in the configuration of the broker from which it was imported.
    """
    match kept.algorithm:
        case "sha256":
            made = hashlib.sha256((kept.salt + shown).encode()).hexdigest()
        case "sha256_suffix":
            made = hashlib.sha256((shown + kept.salt).encode()).hexdigest()
        case "mosquitto_sha512":
            return _is_mosquitto_sha512(kept.hash, shown)
        case "mosquitto_pbkdf2":
            return _is_pbkdf2(f"sha512{kept.hash[2:]}", shown)
        case "go_auth_pbkdf2":
            return _is_pbkdf2(kept.hash.removeprefix("PBKDF2$"), shown)
        case "bcrypt":
            return _is_bcrypt(kept.hash, shown)
        case "argon2id":
            return _is_argon2id(kept.hash, shown)
        case "rabbitmq_sha256" | "rabbitmq_sha512":
            return _is_rabbitmq(kept.algorithm.removeprefix("rabbitmq_"), kept.hash, shown)
        case _:
            return False
    return hmac.compare_digest(made, kept.hash.lower())


def _is_mosquitto_sha512(kept: str, shown: str) -> bool:
    _, _, salt, digest = kept.split("$")
    made = hashlib.sha512(shown.encode() + b64decode(salt)).digest()
    return hmac.compare_digest(made, b64decode(digest))


def _is_pbkdf2(kept: str, shown: str) -> bool:
    name, iterations, salt, digest = kept.split("$")
    if int(iterations) > MAX_ITERATIONS:
        return False
    expected = b64decode(digest)
    made = hashlib.pbkdf2_hmac(
        name, shown.encode(), b64decode(salt), int(iterations), dklen=len(expected)
    )
    return hmac.compare_digest(made, expected)


def _is_bcrypt(kept: str, shown: str) -> bool:
    # bcrypt uses 72 bytes, and newer versions of the library refuse more.
    secret = shown.encode()[:72]
    # Other software may have set the unused bits, and the library requires them to be 0.
    whole = bytearray(kept.encode())
    for index, bits in ((BCRYPT_SALT, 0b110000), (BCRYPT_HASH, 0b111100)):
        whole[index] = BCRYPT_ALPHABET[BCRYPT_ALPHABET.index(whole[index]) & bits]
    return "\0" not in shown and bcrypt.checkpw(secret, bytes(whole))


def _is_argon2id(kept: str, shown: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(shown.encode(), kept)
    except InvalidKey:
        return False
    return True


def _is_rabbitmq(name: str, kept: str, shown: str) -> bool:
    whole = b64decode(kept)
    made = hashlib.new(name, whole[:SALT_BYTES] + shown.encode()).digest()
    return hmac.compare_digest(made, whole[SALT_BYTES:])
