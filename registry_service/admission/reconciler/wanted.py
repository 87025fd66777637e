"""Devices as a Mosquitto should hold them."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from registry_service.admission.questions import Grants
from registry_service.admission.reconciler.dynamic_security import Wanted
from registry_service.credentials import KeyRing, fingerprint_of, topics_of
from registry_service.password_hashes import PasswordHash


def wanted_of(rows: Iterable[Any], ring: KeyRing) -> list[Wanted]:
    """The clients of the rows that `EnforcementStore.wanted` returns."""
    return [_wanted(row, ring) for row in rows]


def _wanted(row: Any, ring: KeyRing) -> Wanted:
    topics = tuple(topics_of(row.uuid))
    password = (
        PasswordHash(row.algorithm, row.hash, row.salt)
        if row.key_id is None
        else partial(ring.password_of, row.key_id, row.uuid, row.salt)
    )
    fingerprint = fingerprint_of(row.salt, row.hash)
    return Wanted(row.username, password, fingerprint, Grants(topics, topics))
