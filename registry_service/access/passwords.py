"""Whether a password is the one that a hash was made of.

Passwords of ours are random secrets of 256 bits, kept under a hash that takes a microsecond. What
was imported is kept as the broker before kept it, and may have been made to be slow.
"""

import hashlib
import hmac
from base64 import b64decode

import bcrypt

from registry_service.access.subjects import Password

SLOW = frozenset({"bcrypt", "mosquitto_pbkdf2"})


def is_slow(kept: Password) -> bool:
    """Whether checking takes milliseconds, which is for a thread."""
    return kept.algorithm in SLOW


def is_password(kept: Password, shown: str) -> bool:
    """Compares in constant time; what cannot be checked is no password.

    Of `pbkdf2_sha256` and `pbkdf2_sha512` nobody knows the number of rounds: it is in the
    configuration of the broker before.
    """
    match kept.algorithm:
        case "sha256":
            made = hashlib.sha256((kept.salt + shown).encode()).hexdigest()
        case "sha256_suffix":
            made = hashlib.sha256((shown + kept.salt).encode()).hexdigest()
        case "mosquitto_sha512":
            return _is_mosquitto_sha512(kept.hash, shown)
        case "mosquitto_pbkdf2":
            return _is_mosquitto_pbkdf2(kept.hash, shown)
        case "bcrypt":
            return _is_bcrypt(kept.hash, shown)
        case _:
            return False
    return hmac.compare_digest(made, kept.hash.lower())


def _is_mosquitto_sha512(kept: str, shown: str) -> bool:
    _, _, salt, digest = kept.split("$")
    made = hashlib.sha512(shown.encode() + b64decode(salt)).digest()
    return hmac.compare_digest(made, b64decode(digest))


def _is_mosquitto_pbkdf2(kept: str, shown: str) -> bool:
    _, _, iterations, salt, digest = kept.split("$")
    made = hashlib.pbkdf2_hmac("sha512", shown.encode(), b64decode(salt), int(iterations))
    return hmac.compare_digest(made, b64decode(digest))


def _is_bcrypt(kept: str, shown: str) -> bool:
    # It looks at 72 bytes, and newer versions refuse more.
    secret = shown.encode()[:72]
    return "\0" not in shown and bcrypt.checkpw(secret, kept.encode())
