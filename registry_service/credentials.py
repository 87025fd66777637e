"""The credentials of devices and people, and what is stored of them.

Mooring makes provisioning keys, API tokens and broker secrets. They are random and long, so their
SHA-256 is stored and looked up. A device chooses its API key, which may be weak, so an HMAC of it
under a server key is stored: the database alone is not enough to guess it. Its MQTT password is not
stored: it is derived from a server key and the row's salt for each answer. The password of a
service account is random, and only the answer to its creation contains it.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from chassis.keyring import read_keys
from registry_service.errors import ServerKeyMissing

log = structlog.get_logger(__name__)

SECRET_BYTES = 32
SALT_BYTES = 16
SALTS_AT_ONCE = 256


def new_secret(prefix: str) -> str:
    """A new provisioning key, API token or broker secret. The prefix shows the kind of a leaked
    secret.
    """
    return f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"


def hash_of_secret(secret: str) -> bytes:
    """The stored hash of a provisioning key, API token or broker secret."""
    return hashlib.sha256(secret.encode()).digest()


def new_password() -> str:
    """A new password of a service account."""
    return secrets.token_urlsafe(SECRET_BYTES)


def _drawn_salts() -> Iterator[str]:
    # One system call makes many salts, because a call for each would take a twentieth of the time
    # of a registration.
    while True:
        drawn = secrets.token_hex(SALT_BYTES * SALTS_AT_ONCE)
        for at in range(0, len(drawn), SALT_BYTES * 2):
            yield drawn[at : at + SALT_BYTES * 2]


_salts = _drawn_salts()


def new_salt() -> str:
    """A new salt. No salt is used twice, so a device that is deleted and registers again gets
    another password.

    Call it from one thread only, in a process that does not fork.
    """
    return next(_salts)


def username_of(uuid: str) -> str:
    """The MQTT username of a device (docs/note.md)."""
    return f"device_{uuid}"


def topics_of(uuid: str) -> list[str]:
    """The topic filters that a device may publish and subscribe to (docs/note.md)."""
    return [f"iot/device/{uuid}/#"]


def hash_of_password(salt: str, password: str) -> str:
    """The stored hash of a password, for brokers that read it by SQL: hex of SHA-256 over salt and
    password. A random secret of 256 bits cannot be guessed, so it needs no slow hash.
    """
    return hashlib.sha256((salt + password).encode()).hexdigest()


def fingerprint_of(salt: str, password_hash: str) -> str:
    """A public value that changes with the password, for example for brokers to store. It is a hash
    of the stored columns of the password, with the salt, so that guesses cannot be checked against
    it without these columns.
    """
    return hashlib.sha256(f"{salt}|{password_hash}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The server keys. Rows name the key they were made with; new rows use the active one."""

    active_id: int
    keys: Mapping[int, bytes] = field(repr=False)
    # HMACs that are initialised with their keys; copying one takes half the time.
    _begun: Mapping[int, hmac.HMAC] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Called by the constructor."""
        begun = {key_id: hmac.new(key, digestmod="sha256") for key_id, key in self.keys.items()}
        object.__setattr__(self, "_begun", begun)

    @classmethod
    def read(cls, file: Path) -> "KeyRing":
        """Reads a file of keys (`chassis/keyring.py`).

        Raises `SystemExit` for a file that is not such a ring.
        """
        active_id, keys = read_keys(file, "server keys")
        if any(len(key) < SECRET_BYTES for key in keys.values()):
            raise SystemExit(f"{file}: a key is too short")
        return cls(active_id, keys)

    def hash_of_api_key(self, key_id: int, uuid: str, api_key: str) -> bytes:
        """The stored HMAC of a device's API key. Raises `ServerKeyMissing`."""
        return self._hmac(key_id, f"device-api-key\0{uuid}\0{api_key}")

    def is_api_key(self, key_id: int, uuid: str, api_key: str, kept: bytes) -> bool:
        """Whether the stored HMAC belongs to this API key. Compares in constant time. Raises
        `ServerKeyMissing`.
        """
        return hmac.compare_digest(self.hash_of_api_key(key_id, uuid, api_key), kept)

    def password_of(self, key_id: int, uuid: str, salt: str) -> str:
        """The device's MQTT password: 256 bits, 43 characters. Raises `ServerKeyMissing`."""
        digest = self._hmac(key_id, f"mqtt-password\0{uuid}\0{salt}")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

    def cursor_key(self, key_id: int) -> bytes:
        """The key that encrypts cursors: 256 bits. Raises `ServerKeyMissing`."""
        return self._hmac(key_id, "cursor")

    def _hmac(self, key_id: int, message: str) -> bytes:
        begun = self._begun.get(key_id)
        if begun is None:
            log.error("a server key is missing from the ring", key_id=key_id)
            raise ServerKeyMissing(
                "this service does not hold the server key of the device's credentials"
            )
        code = begun.copy()
        code.update(message.encode())
        return code.digest()
