"""Encrypts secrets with the active key that are encrypted with another key, or that an earlier
version stored without their destination; a chunk at a time.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.certificates.database import private_key_place
from broker_service.database import set_reencrypting
from broker_service.encryption import HEADER_BYTES, EncryptionKeys
from broker_service.errors import SecretUnreadable
from broker_service.passwords import password_place
from broker_service.reencrypt.database import Kept, destinations_of
from broker_service.tables import brokers, certificates, history
from chassis import audit
from chassis.database import take_turns, writing
from domain.turns import PLACEMENT

# How many rows one transaction locks. Changes of these rows wait until it ends.
CHUNK = 50

Secret = sa.Column[bytes | None]


@dataclass(frozen=True, slots=True)
class Chunk:
    """How many secrets a chunk has encrypted, and the id after which there may be more."""

    passwords: int = 0
    private_keys: int = 0
    # The places of secrets that no key of the ring can decrypt.
    unreadable: tuple[str, ...] = ()
    last_id: int | None = None

    def __add__(self, other: "Chunk") -> "Chunk":
        return Chunk(
            self.passwords + other.passwords,
            self.private_keys + other.private_keys,
            self.unreadable + other.unreadable,
        )


class ReencryptionStore:
    """Each chunk is a transaction; repeating one changes nothing."""

    def __init__(self, engine: AsyncEngine, keys: EncryptionKeys) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine
        self._keys = keys

    async def passwords(self, after: int) -> Chunk:
        """Encrypts the passwords of the next brokers after the id `after`, also in their histories.
        A password that has the same bytes in two revisions still has the same bytes in both
        afterwards, because the history compares them.
        """
        async with writing(self._engine) as connection:
            await take_turns(connection, PLACEMENT)
            await set_reencrypting(connection, is_on=True)
            ids = await self._broker_ids(connection, after)
            await connection.execute(
                sa.select(brokers.c.id)
                .where(brokers.c.id.in_(ids))
                .order_by(brokers.c.id)
                .with_for_update()
            )
            kept = sa.union(
                *(
                    sa.select(owner, secret).where(
                        owner.in_(ids), self._is_elsewhere(secret, is_bound=True)
                    )
                    for owner, secret in PASSWORDS
                )
            )
            rows = [tuple(row) for row in await connection.execute(kept)]
            destinations = await destinations_of(connection, ids)
            renewed, unreadable = self._renewed(rows, password_place, destinations)
            done = 0
            for owner, secret in PASSWORDS:
                done += await _replace(connection, owner, secret, renewed)
            chunk = Chunk(
                passwords=done,
                unreadable=tuple(f"a password of broker {broker_id}" for broker_id in unreadable),
                last_id=max(ids, default=None),
            )
            await self._record(connection, chunk)
        return chunk

    async def private_keys(self, after: int) -> Chunk:
        """Encrypts the private keys of the next certificates after the id `after`."""
        owner, secret = certificates.c.id, certificates.c.private_key_encrypted
        chosen = (
            sa.select(owner, secret)
            .where(owner > after, self._is_elsewhere(secret, is_bound=False))
            .order_by(owner)
            .limit(CHUNK)
            .with_for_update()
        )
        async with writing(self._engine) as connection:
            await take_turns(connection, PLACEMENT)
            rows = [tuple(row) for row in await connection.execute(chosen)]
            renewed, unreadable = self._renewed(rows, private_key_place)
            chunk = Chunk(
                private_keys=await _replace(connection, owner, secret, renewed),
                unreadable=tuple(f"the private key of certificate {one}" for one in unreadable),
                last_id=max((found for found, _ in rows), default=None),
            )
            await self._record(connection, chunk)
        return chunk

    async def _broker_ids(self, connection: AsyncConnection, after: int) -> list[int]:
        found = sa.union(
            *(
                sa.select(owner.label("broker_id")).where(
                    owner > after, self._is_elsewhere(secret, is_bound=True)
                )
                for owner, secret in PASSWORDS
            )
        ).subquery()
        query = sa.select(found.c.broker_id).order_by(found.c.broker_id).limit(CHUNK)
        return list((await connection.execute(query)).scalars())

    def _is_elsewhere(self, secret: Secret, *, is_bound: bool) -> sa.ColumnElement[bool]:
        """Whether the secret is not encrypted with the active key, or lacks its destination."""
        return sa.func.substring(secret, 1, HEADER_BYTES) != self._keys.header(is_bound=is_bound)

    def _renewed(
        self,
        rows: Iterable[tuple[Any, ...]],
        place_of: Callable[[int], str],
        destinations: Mapping[Kept, str] | None = None,
    ) -> tuple[list[tuple[int, bytes, bytes]], list[int]]:
        """For each secret its row, its stored form and its new form; and the ids of secrets that
        cannot be read. A secret without a destination gets its destination in `destinations`, if
        that is given.
        """
        renewed: list[tuple[int, bytes, bytes]] = []
        unreadable: list[int] = []
        for row_id, kept in rows:
            place = place_of(row_id)
            try:
                opened = self._keys.open(kept, place=place)
            except SecretUnreadable:
                unreadable.append(row_id)
                continue
            destination = opened.destination
            if destination is None and destinations is not None:
                destination = destinations[row_id, kept]
            sealed = self._keys.encrypt(opened.plain, place=place, destination=destination)
            renewed.append((row_id, kept, sealed))
        return renewed, unreadable

    async def _record(self, connection: AsyncConnection, chunk: Chunk) -> None:
        if chunk.passwords or chunk.private_keys:
            counts = {"passwords": chunk.passwords, "keys_of_certificates": chunk.private_keys}
            await audit.record(
                connection, "encryption.renew", str(self._keys.active_id), after=counts
            )


# The columns with passwords, each with the column of the broker's id.
PASSWORDS: tuple[tuple[sa.Column[int], Secret], ...] = (
    (brokers.c.id, brokers.c.password_encrypted),
    (history.c.broker_id, history.c.password_encrypted),
)


async def _replace(
    connection: AsyncConnection,
    owner: sa.Column[int],
    secret: Secret,
    renewed: list[tuple[int, bytes, bytes]],
) -> int:
    """Writes `renewed` secrets, and returns the number of changed rows."""
    if not renewed:
        return 0
    names = (("id", sa.Integer()), ("kept", sa.LargeBinary()), ("renewed", sa.LargeBinary()))
    given = sa.values(*(sa.column(name, kind) for name, kind in names), name="given").data(renewed)
    update = (
        sa.update(owner.table)
        .where(owner == given.c.id, secret == given.c.kept)
        .values({secret: given.c.renewed})
    )
    return (await connection.execute(update)).rowcount
