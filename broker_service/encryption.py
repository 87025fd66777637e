"""Encrypts secrets that must be read again, with keys that are not in the database. The stored form
is AES-256-GCM: a version, the key's id, a nonce, and the ciphertext with its tag. The encryption
also authenticates the place of storage, so a secret that is copied to another row or column cannot
be read there.

A secret that is sent to a server is stored with its destination, which is authenticated too. So it
cannot be changed, and `decrypt` returns the secret for that destination only.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker_service.errors import SecretUnreadable
from chassis.keyring import read_keys

# The form without a destination: version, key id, nonce, ciphertext.
UNBOUND = b"\x01"
# The form with a destination: version, key id, nonce, length of the destination, destination,
# ciphertext.
BOUND = b"\x02"
VERSION_BYTES = 1
KEY_ID_BYTES = 4
NONCE_BYTES = 12
LENGTH_BYTES = 4
KEY_BYTES = 32
HEADER_BYTES = VERSION_BYTES + KEY_ID_BYTES


class SecretNotBound(SecretUnreadable):
    """An earlier version stored the secret without its destination: `broker_service.reencrypt` adds
    it.
    """


class SecretBoundElsewhere(SecretUnreadable):
    """The secret was given for another destination. The message holds that destination."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A secret in plain text, with the destination for which it was encrypted, if any."""

    plain: str = field(repr=False)
    destination: str | None


@dataclass(frozen=True, slots=True)
class EncryptionKeys:
    """The ring. A stored secret names its key; new encryptions use the active key."""

    active_id: int
    keys: Mapping[int, bytes] = field(repr=False)

    @classmethod
    def read(cls, file: Path) -> "EncryptionKeys":
        """Reads a file of keys of 32 bytes each (`chassis/keyring.py`).

        Raises `SystemExit` for a file that is not such a ring.
        """
        active_id, keys = read_keys(file, "encryption keys")
        if not all(0 < key_id < 2 ** (8 * KEY_ID_BYTES) for key_id in keys):
            raise SystemExit(f"{file}: ids of keys are from 1 to 4294967295")
        if any(len(key) != KEY_BYTES for key in keys.values()):
            raise SystemExit(f"{file}: a key has {KEY_BYTES} bytes")
        return cls(active_id, keys)

    def encrypt(self, plain: str, *, place: str, destination: str | None = None) -> bytes:
        """The stored form of a secret. `place` names table, column and row (`place_of`). The secret
        may be sent to `destination` only; None for a secret that is never sent.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        bound = b"" if destination is None else _with_length(destination.encode())
        header = self.header(is_bound=destination is not None)
        sealed = AESGCM(self.keys[self.active_id]).encrypt(
            nonce, plain.encode(), header + bound + place.encode()
        )
        return header + nonce + bound + sealed

    def header(self, *, is_bound: bool) -> bytes:
        """The first bytes of secrets that are encrypted with the active key."""
        return (BOUND if is_bound else UNBOUND) + self.active_id.to_bytes(KEY_ID_BYTES)

    def decrypt(self, kept: bytes, *, place: str, destination: str | None = None) -> str:
        """The secret, which may be sent to `destination` only; None for a secret that is never
        sent. Raises `SecretUnreadable` if its key is not in the ring, or it was changed or moved;
        `SecretNotBound` if it was stored without a destination; `SecretBoundElsewhere`.
        """
        opened = self.open(kept, place=place)
        if opened.destination == destination:
            return opened.plain
        if opened.destination is None:
            raise SecretNotBound("internal error")
        raise SecretBoundElsewhere(opened.destination)

    def open(self, kept: bytes, *, place: str) -> Opened:
        """The secret, to encrypt it again. To use a secret, call `decrypt`. Raises
        `SecretUnreadable`.
        """
        header, nonce = kept[:HEADER_BYTES], kept[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
        key = self.keys.get(key_id_of(kept))
        if key is None or header[:VERSION_BYTES] not in (UNBOUND, BOUND):
            raise SecretUnreadable("internal error")
        bound, sealed = b"", kept[HEADER_BYTES + NONCE_BYTES :]
        if header.startswith(BOUND):
            end = LENGTH_BYTES + int.from_bytes(sealed[:LENGTH_BYTES])
            bound, sealed = sealed[:end], sealed[end:]
        try:
            plain = AESGCM(key).decrypt(nonce, sealed, header + bound + place.encode()).decode()
            return Opened(plain, bound[LENGTH_BYTES:].decode() if bound else None)
        except (InvalidTag, ValueError):
            raise SecretUnreadable("internal error") from None


def place_of(table: str, column: str, row_id: int) -> str:
    """The place of a secret, for `encrypt` and `decrypt`."""
    return f"{table}.{column}/{row_id}"


def key_id_of(kept: bytes) -> int:
    """The id of the key with which the secret was encrypted."""
    return int.from_bytes(kept[VERSION_BYTES:HEADER_BYTES])


def _with_length(destination: bytes) -> bytes:
    return len(destination).to_bytes(LENGTH_BYTES) + destination
