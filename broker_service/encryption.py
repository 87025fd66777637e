"""Secrets that must be read again, encrypted under keys that the database never sees.

What is kept is AES-256-GCM: a version, the key's id, a nonce, the text with its tag. The place
where it is kept is authenticated too: what is copied to another row or column is unreadable there.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker_service.errors import SecretUnreadable
from chassis.keyring import read_keys

VERSION = b"\x01"
KEY_ID_BYTES = 4
NONCE_BYTES = 12
KEY_BYTES = 32
HEADER_BYTES = len(VERSION) + KEY_ID_BYTES


@dataclass(frozen=True, slots=True)
class EncryptionKeys:
    """The ring. What is kept names its key; what is encrypted anew uses the active one."""

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

    def encrypt(self, plain: str, *, place: str) -> bytes:
        """What is kept at `place`, which names table, column and row: `place_of`."""
        header = VERSION + self.active_id.to_bytes(KEY_ID_BYTES)
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self.keys[self.active_id]).encrypt(
            nonce, plain.encode(), _bound(header, place)
        )
        return header + nonce + sealed

    def decrypt(self, kept: bytes, *, place: str) -> str:
        """Raises `SecretUnreadable`: its key is not in the ring, or it was changed or moved."""
        header, nonce = kept[:HEADER_BYTES], kept[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
        key = self.keys.get(key_id_of(kept))
        if key is None or not header.startswith(VERSION):
            raise SecretUnreadable("internal error")
        try:
            sealed = kept[HEADER_BYTES + NONCE_BYTES :]
            return AESGCM(key).decrypt(nonce, sealed, _bound(header, place)).decode()
        except (InvalidTag, ValueError):
            raise SecretUnreadable("internal error") from None


def place_of(table: str, column: str, row_id: int) -> str:
    """Where a secret is kept, as `encrypt` and `decrypt` are told."""
    return f"{table}.{column}/{row_id}"


def key_id_of(kept: bytes) -> int:
    """With which key of the ring it was encrypted."""
    return int.from_bytes(kept[len(VERSION) : HEADER_BYTES])


def _bound(header: bytes, place: str) -> bytes:
    return header + place.encode()
