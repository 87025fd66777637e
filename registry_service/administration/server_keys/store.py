"""Counts devices by server key in the database, and ends their passwords a chunk at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, writing
from registry_service.administration.devices.store import PREVIOUS, password_ended
from registry_service.password_hashes import NONE
from registry_service.tables import device_count_changes, device_counts, devices

# How many devices one transaction reads. Other changes of the devices that it changes wait for it.
WINDOW = 5_000
# How many devices of each key are counted at first, to see which keys have few.
FIRST_LIMIT = 10_000

_key_id = devices.c.credential_key_id
_has_password = devices.c.password_algorithm != NONE


@dataclass(frozen=True, slots=True)
class Usage:
    """How many devices have credentials that a key has made: enabled ones, and disabled ones."""

    devices: int = 0
    disabled_devices: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """How many passwords a chunk has ended, and the id after which there may be more."""

    passwords: int = 0
    previous_passwords: int = 0
    last_id: int | None = None

    def __add__(self, other: "Ended") -> "Ended":
        return Ended(
            self.passwords + other.passwords,
            self.previous_passwords + other.previous_passwords,
        )


class ServerKeyStore:
    """Devices that were imported and have not registered use no server key."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def usage(self) -> dict[int, Usage]:
        """The usage of each key, by its id, as of one moment."""
        async with writing(self._engine) as connection:
            await connection.execute(
                sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            )
            key_ids = await _key_ids(connection)
            enabled = await _enabled(connection, key_ids)
            query = (
                sa.select(_key_id, sa.func.count()).where(~devices.c.is_active).group_by(_key_id)
            )
            disabled = {row[0]: row[1] for row in await connection.execute(query)}
        return {one: Usage(enabled[one], disabled.get(one, 0)) for one in key_ids}

    async def end_passwords(self, key_id: int, after: int) -> Ended:
        """Ends the passwords that the key has made, for the next devices after the id `after`.

        It ends all previous passwords too, because their keys are not stored. It is one
        transaction, and safe to repeat.
        """
        window = sa.select(devices.c.id).where(devices.c.id > after).order_by(devices.c.id)
        upto = sa.select(sa.func.max(window.limit(WINDOW).subquery().c.id))
        async with writing(self._engine) as connection:
            last_id = await connection.scalar(upto)
            if last_id is None:
                return Ended()
            is_within = sa.and_(devices.c.id > after, devices.c.id <= last_id)
            locked = (
                sa.select(devices.c.id)
                .where(
                    is_within,
                    sa.or_(
                        sa.and_(devices.c.credential_key_id == key_id, _has_password),
                        devices.c.previous_until.is_not(None),
                    ),
                )
                .order_by(devices.c.id)
                .with_for_update(key_share=True)
            )
            await connection.execute(locked)
            end = (
                sa.update(devices)
                .where(is_within, devices.c.credential_key_id == key_id, _has_password)
                .values(password_ended())
            )
            passwords = (await connection.execute(end)).rowcount
            forget = (
                sa.update(devices)
                .where(is_within, devices.c.previous_until.is_not(None))
                .values(dict.fromkeys(PREVIOUS))
            )
            ended = Ended(passwords, (await connection.execute(forget)).rowcount, last_id)
            if ended.passwords or ended.previous_passwords:
                await audit.record(
                    connection,
                    "server_key.retire",
                    str(key_id),
                    after={"devices": passwords, "previous_passwords": ended.previous_passwords},
                )
        return ended

    async def passwords_left(self, key_id: int) -> int:
        """The number of devices with a password from the key."""
        query = sa.select(sa.func.count()).where(
            devices.c.credential_key_id == key_id, _has_password
        )
        async with reading(self._engine) as connection:
            return int(await connection.scalar(query) or 0)


async def _key_ids(connection: AsyncConnection) -> list[int]:
    """The keys that have devices, each read from the index after the one before."""
    found: list[int] = []
    query = sa.select(sa.func.min(_key_id))
    key_id = await connection.scalar(query)
    while key_id is not None:
        found.append(key_id)
        key_id = await connection.scalar(query.where(_key_id > key_id))
    return found


async def _enabled(connection: AsyncConnection, key_ids: Sequence[int]) -> dict[int | None, int]:
    """The number of enabled devices of each key, and of those without a key (None).

    Counting entries of the index takes a tenth of a second for a million. The number of all devices
    is known, and most devices have one key, so that key's are all but the others'. Which key that
    is shows when the others have been counted to their ends.
    """
    counts: dict[int | None, int] = {}
    unknown: list[int | None] = [None, *key_ids]
    limit = FIRST_LIMIT
    while len(unknown) > 1:
        for key_id in unknown:
            is_of_key = _key_id.is_(None) if key_id is None else _key_id == key_id
            some = (
                sa.select(sa.literal(1))
                .where(is_of_key, devices.c.is_active)
                .limit(limit)
                .subquery()
            )
            count = await connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0
            if count < limit:
                counts[key_id] = count
        unknown = [key_id for key_id in unknown if key_id not in counts]
        limit *= 4
    if unknown:
        kinds = sa.union_all(
            sa.select(device_counts.c.devices), sa.select(device_count_changes.c.devices)
        ).subquery()
        every = await connection.scalar(sa.select(sa.func.sum(kinds.c.devices))) or 0
        counts[unknown[0]] = int(every) - sum(counts.values())
    return counts
