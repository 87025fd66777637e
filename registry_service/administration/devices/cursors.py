"""Cursors in lists of devices, as callers get them.

That of a token which is restricted to fleets is encrypted: a page may end at a device of another
fleet, and its uuid or name is not for this caller.
"""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.errors import InvalidInput
from chassis.isolation import Fleets
from registry_service.administration.devices.orders import Position, cursor_of, position_of
from registry_service.credentials import KeyRing

ID_BYTES, NONCE_BYTES = 4, 12


class Cursors:
    """Every replica has the same keys."""

    def __init__(self, ring: KeyRing) -> None:
        """Encrypts with keys that are derived from those of `ring`."""
        self._ring = ring

    def made(self, conditions: Mapping[str, Any], position: Position, within: Fleets) -> str:
        """The cursor to `position` for a caller with these fleets."""
        cursor = cursor_of(conditions, position)
        if within is None:
            return cursor
        key_id, nonce = self._ring.active_id, os.urandom(NONCE_BYTES)
        sealed = self._cipher(key_id).encrypt(nonce, cursor.encode(), _bound(within))
        parts = key_id.to_bytes(ID_BYTES, "big") + nonce + sealed
        return base64.urlsafe_b64encode(parts).decode()

    def read(self, conditions: Mapping[str, Any], cursor: str, within: Fleets) -> Position:
        """Where a cursor points to. Raises `InvalidInput` for one that was not made so."""
        if cursor and within is not None:
            cursor = self._opened(cursor, within)
        return position_of(conditions, cursor)

    def _opened(self, cursor: str, within: frozenset[str]) -> str:
        try:
            parts = base64.b64decode(cursor.encode("ascii"), b"-_", validate=True)
            key_id = int.from_bytes(parts[:ID_BYTES], "big")
            nonce, sealed = parts[ID_BYTES:][:NONCE_BYTES], parts[ID_BYTES + NONCE_BYTES :]
            if key_id not in self._ring.keys or len(nonce) < NONCE_BYTES:
                raise ValueError
            return self._cipher(key_id).decrypt(nonce, sealed, _bound(within)).decode()
        except (UnicodeError, binascii.Error, ValueError, InvalidTag):
            raise InvalidInput("this cursor is invalid", field="cursor") from None

    def _cipher(self, key_id: int) -> AESGCM:
        return AESGCM(self._ring.cursor_key(key_id))


def _bound(within: frozenset[str]) -> bytes:
    return json.dumps(sorted(within)).encode()
