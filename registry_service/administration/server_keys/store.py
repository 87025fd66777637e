"""Counts devices by server key in the database, and ends their passwords a chunk at a time."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis import audit
from chassis.database import reading, writing
from registry_service.administration.devices.store import PREVIOUS, password_ended
from registry_service.password_hashes import NONE
from registry_service.tables import devices

# How many devices one transaction reads. Other changes of the devices that it changes wait for it.
WINDOW = 5_000

_has_password = devices.c.password_algorithm != NONE


@dataclass(frozen=True, slots=True)
class Usage:
    """How many devices have credentials that a key has made."""

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
        """The usage of each key, by its id. It reads an index of all devices: some tenths of a
        second for a million.
        """
        key_id, is_active = devices.c.credential_key_id, devices.c.is_active
        query = (
            sa.select(key_id, is_active, sa.func.count().label("n"))
            .where(key_id.is_not(None))
            .group_by(key_id, is_active)
        )
        found: dict[int, dict[bool, int]] = {}
        async with reading(self._engine) as connection:
            for row in await connection.execute(query):
                found.setdefault(row.credential_key_id, {})[row.is_active] = row.n
        return {
            one: Usage(counts.get(True, 0), counts.get(False, 0)) for one, counts in found.items()
        }

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
