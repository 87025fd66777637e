"""Reads and writes devices and keys in the database, a batch at a time."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from prometheus_client import Histogram
from psycopg.errors import CheckViolation, ForeignKeyViolation

from chassis.database import Pool, Row, fetched, text_array, transaction
from chassis.errors import Unavailable
from chassis.log import request_id
from registry_service.provisioning import statements
from registry_service.provisioning.decision import ProvisioningKey, grant
from registry_service.provisioning.records import (
    AnswerChange,
    CredentialRotation,
    Device,
    Expected,
    Known,
    KnownKey,
    NewDeviceRow,
    Renewal,
    Saved,
)

COMMIT_SECONDS = Histogram(
    "mooring_commit_seconds", "How long it took to write a batch of registrations durably"
)

LIMIT_IS_KEPT = "limit_is_kept"

_keys = msgspec.json.Decoder(list[KnownKey])
_devices = msgspec.json.Decoder(list[Device])
_expected = msgspec.json.Decoder(list[Expected])
_reserved = msgspec.json.Decoder(dict[str, str])
_regions = msgspec.json.Decoder(frozenset[str])


class RegistrationStore:
    """Every method takes a batch, and raises `Unavailable` after a race or a lost connection."""

    def __init__(self, pool: Pool, previous_password_s: float) -> None:
        """`pool` connects as mooring_registry. A replaced password stays valid for
        `previous_password_s`; with 0 it ends at once.
        """
        self._pool = pool
        self._previous_password_s = previous_password_s

    async def known_of(
        self, key_hashes: Collection[bytes], uuids: Collection[str], regions: Collection[str] = ()
    ) -> Known:
        """The existing keys, devices and regions, in one round trip; uuids are identifiers.
        Expected devices are read only if there is a key.
        """
        asked = text_array(uuids)
        new = asked if key_hashes else text_array(())
        values = [list(key_hashes), asked, new, new, list(regions), new]
        [
            (keys, devices, expected, reserved, known_regions, version, is_replicated)
        ] = await fetched(self._pool, statements.READ, values)
        return Known(
            {item.hash: item for item in _keys.decode(keys)},
            {device.uuid: device for device in _devices.decode(devices)},
            version,
            {item.uuid: item for item in _expected.decode(expected)},
            _reserved.decode(reserved),
            _regions.decode(known_regions),
            is_replicated,
        )

    async def mark(self, devices: Collection[Device]) -> None:
        """Returns when a synchronous standby has these rows, which were read before; each device
        occurs once. Raises `Unavailable` if they have changed since.
        """
        values = [[one.id for one in devices], [one.credential_salt for one in devices]]
        if not await fetched(self._pool, statements.MARK, [*values, len(devices)]):
            raise Unavailable("a device has changed since it was read")

    async def save(
        self,
        new: Sequence[NewDeviceRow],
        renewals: Sequence[Renewal],
        rotations: Sequence[CredentialRotation],
        answer_changes: Sequence[AnswerChange],
        now: datetime,
        version: str | None = None,
    ) -> Saved:
        """Writes the four lists durably. Of `new`, it writes as many as the keys' limits allow, or
        none if `version` is given and brokers or fleets have another version by now. No device is
        in two lists, so each list is a transaction by itself. Raises `psycopg.Error` if the
        database refuses the values.
        """
        created: list[Row] = []
        renewed: list[Row] = []
        if not (new or renewals or rotations or answer_changes):
            return Saved({}, frozenset())
        try:
            with COMMIT_SECONDS.time():
                if new:
                    created = await self._create(new, now, version)
                if renewals:
                    renewed = await fetched(self._pool, statements.RENEW, [_json(renewals)])
                rotated = await self.rotate(rotations)
                await self.record_answers(answer_changes)
        except ForeignKeyViolation as error:
            # Since the read, a pin was moved to another broker, and the old broker was deleted.
            raise Unavailable("a fleet or broker of a device has changed") from error
        return Saved(
            {uuid: (device_id, created_at) for uuid, device_id, created_at in created},
            frozenset(device_id for (device_id,) in renewed),
            rotated,
        )

    async def rotate(self, rotations: Sequence[CredentialRotation]) -> frozenset[int]:
        """Gives devices new credentials, unless theirs have changed since they were read. Returns
        the ids of the changed devices.
        """
        if not rotations:
            return frozenset()
        values = [_json(rotations), self._previous_password_s, request_id.get()]
        return frozenset(row[0] for row in await fetched(self._pool, statements.ROTATE, values))

    async def record_answers(self, answer_changes: Sequence[AnswerChange]) -> None:
        """Records answers in the devices' rows."""
        if answer_changes:
            await fetched(self._pool, statements.RECORD_ANSWERS, [_json(answer_changes)])

    async def _create(
        self, new: Sequence[NewDeviceRow], now: datetime, version: str | None
    ) -> list[Row]:
        """Inserts devices; returns uuid, id and time of each inserted one."""
        key_ids = {device.provisioned_by_key_id for device in new}
        try:
            values = _values(version, key_ids, new)
            return await fetched(self._pool, statements.CREATE, values)
        except CheckViolation as error:
            if error.diag.constraint_name != LIMIT_IS_KEPT:
                raise
            return await self._create_within_limits(new, now, version)

    async def _create_within_limits(
        self, new: Sequence[NewDeviceRow], now: datetime, version: str | None
    ) -> list[Row]:
        """Inserts devices with keys that are nearly used up, as many as their limits allow. It
        locks the keys, reads the rest of each limit, and inserts. Returns the same as `_create`.
        """
        wanted: dict[UUID, list[NewDeviceRow]] = {}
        for device in new:
            wanted.setdefault(device.provisioned_by_key_id, []).append(device)
        async with transaction(self._pool) as connection:
            locking = await connection.execute(statements.LOCK_KEYS, [list(wanted)])
            granted: list[NewDeviceRow] = []
            for row in await locking.fetchall():
                key = ProvisioningKey(*row)
                granted += wanted[key.id][: grant(key, len(wanted[key.id]), now)]
            if not granted:
                return []
            values = _values(version, wanted, granted)
            inserting = await connection.execute(statements.CREATE, values)
            return await inserting.fetchall()


def _values(version: str | None, key_ids: Iterable[UUID], new: Sequence[NewDeviceRow]) -> list[Any]:
    """The parameters of the statement that inserts."""
    is_any_expected = any(device.expected_id is not None for device in new)
    return [version, list(key_ids), _json(new), is_any_expected]


def _json(rows: Sequence[NewDeviceRow | Renewal | CredentialRotation | AnswerChange]) -> str:
    return msgspec.json.encode(rows).decode()
