"""Brokers in the database, as they are now."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.certificates.database import kept
from broker_service.certificates.reading import Certificate
from broker_service.database import (
    Row,
    all_brokers,
    audited,
    broker_of,
    ca_cert_of,
    changing,
    destination_in,
    require_backup,
)
from broker_service.destinations import destination_of
from broker_service.encryption import HEADER_BYTES, EncryptionKeys, key_id_of
from broker_service.errors import BrokerInactive, BrokerInUse
from broker_service.passwords import Change, Passwords
from broker_service.tables import brokers, fleet_brokers, fleets
from chassis import audit
from chassis.database import reading
from chassis.isolation import Fleets, is_within
from chassis.revisions import require_revision
from chassis.searching import Start, ordered
from chassis.trust import Access, role

# How often a deletion is tried if a pin to the broker is committed meanwhile. If new pins keep
# coming, the deletion fails.
MAX_DELETIONS = 3
_SEARCHED = (brokers.c.name, brokers.c.host, brokers.c.description)


@dataclass(frozen=True, slots=True)
class Filter:
    """The filter of a list of brokers; None matches all."""

    is_active: bool | None = None
    is_default: bool | None = None
    region: str | None = None
    protocol: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    # A part of the name, in upper or lower case.
    name: str = ""
    # Of its CA or of its clients.
    certificate_id: int | None = None
    # Empty for all.
    ids: Sequence[int] = ()


class BrokerStore:
    """Rows come from `mqtt_broker_config`, with the CA's PEM text as `ca_cert`.

    A change with `if_revision` raises `LostRace` unless `if_revision` is empty or holds the
    broker's revision.
    """

    def __init__(self, engine: AsyncEngine, keys: EncryptionKeys) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine
        self._keys = keys
        self._passwords = Passwords(keys)

    async def broker(self, broker_id: int, within: Fleets) -> Row:
        """Raises `BrokerNotFound`, also for a broker that none of the fleets may use."""
        async with reading(self._engine) as connection:
            return await broker_of(connection, broker_id, is_usable(within))

    def password_of(self, row: Row) -> str:
        """The password of a row with its certificates, for the destination in the row. Raises
        `SecretUnreadable`.
        """
        destination = destination_of(row, ca_cert_of(row))
        return self._passwords.read(row["id"], row["password_encrypted"], destination)

    async def brokers_from(
        self, start: Start[int], limit: int, wanted: Filter, within: Fleets
    ) -> Sequence[Row]:
        """The brokers that one of the fleets may use, in the order of their ids."""
        matching = all_brokers.where(is_usable(within), *_conditions(wanted))
        query = ordered(matching, start, brokers.c.id, texts=_SEARCHED)
        async with reading(self._engine) as connection:
            found = await connection.execute(query.limit(limit))
            rows: Sequence[Row] = found.mappings().all()
        return rows

    async def names_among(self, names: Collection[str]) -> set[str]:
        """The names in `names` that brokers have."""
        wanted = [name for name in names if "\0" not in name]
        query = sa.select(brokers.c.name).where(brokers.c.name.in_(wanted))
        async with reading(self._engine) as connection:
            return set((await connection.execute(query)).scalars())

    async def create(
        self,
        columns: Mapping[str, Any],
        ca: Certificate | None,
        password: str | None,
        *,
        validate_only: bool = False,
    ) -> Row:
        """With `validate_only` nothing is stored, and the row has the id 0. Raises
        `BrokerNameTaken`, `CertificateUnknown`, `BrokerUnknown`.
        """
        async with changing(self._engine, validate_only=validate_only) as connection:
            # The password is encrypted for its row. A sequence is not rolled back, so validating
            # takes no id from it.
            next_id = sa.func.nextval("mqtt_broker_config_id_seq")
            broker_id: int = (
                0 if validate_only else (await connection.execute(sa.select(next_id))).scalar_one()
            )
            row = {"ca_certificate_id": None, **columns, "id": broker_id}
            await require_backup(connection, None, row)
            if ca is not None:
                row["ca_certificate_id"] = (await kept(connection, ca, self._keys)).id
            if password is not None:
                destination = await destination_in(connection, row)
                row["password_encrypted"] = self._passwords.sealed(broker_id, password, destination)
            await connection.execute(sa.insert(brokers).values(row))
            created = await broker_of(connection, broker_id)
            await audited(connection, "broker.create", None, created)
            return created

    async def update(
        self,
        broker_id: int,
        decide: Callable[[Row], Mapping[str, Any]],
        if_revision: Collection[int] = (),
        *,
        validate_only: bool = False,
    ) -> Row:
        """Locks the row, calls `decide` with it, and changes the columns in its result. `ca_cert`
        in the result is a `Certificate` or None, `password` a password. With `validate_only`
        nothing is stored. Raises `BrokerNotFound`, `BrokerNameTaken`, `BrokerIsDefault`,
        `CertificateUnknown`, `BrokerUnknown`, and what `decide` raises.
        """
        async with changing(self._engine, validate_only=validate_only) as connection:
            before = await broker_of(connection, broker_id, is_locked=True)
            values = dict(decide(before))
            if "ca_cert" in values:
                bundle = values.pop("ca_cert")
                values["ca_certificate_id"] = (
                    None if bundle is None else (await kept(connection, bundle, self._keys)).id
                )
            sealed = await self._password_after(connection, before, values)
            values.pop("password", None)
            await require_backup(connection, before, values)
            if sealed != before["password_encrypted"]:
                values["password_encrypted"] = sealed
            # Errors of the request itself come first (RFC 9110, section 13.2.1).
            require_revision("broker", before["revision"], if_revision)
            if values:
                await connection.execute(
                    sa.update(brokers).where(brokers.c.id == broker_id).values(values)
                )
            after = await broker_of(connection, broker_id)
            await audited(connection, "broker.update", before, after)
            return after

    async def delete(self, broker_id: int, if_revision: Collection[int] = ()) -> None:
        """Raises `BrokerNotFound`, `BrokerIsDefault`, `BrokerInUse` with the counts."""
        for _ in range(MAX_DELETIONS):
            try:
                return await self._delete(broker_id, if_revision)
            except BrokerInUse as error:
                # Without counts, a foreign key was violated by a row that was committed meanwhile.
                # The next attempt counts it.
                refused = error
                if error.usage:
                    break
        raise refused

    async def _delete(self, broker_id: int, if_revision: Collection[int]) -> None:
        async with changing(self._engine) as connection:
            before = await broker_of(connection, broker_id, is_locked=True)
            require_revision("broker", before["revision"], if_revision)
            await connection.execute(sa.delete(brokers).where(brokers.c.id == broker_id))
            await audited(connection, "broker.delete", before, None)

    async def set_default(self, broker_id: int, if_revision: Collection[int] = ()) -> Row:
        """Raises `BrokerNotFound`, `BrokerInactive`, `LostRace`."""
        async with changing(self._engine) as connection:
            row = await broker_of(connection, broker_id, is_locked=True)
            require_revision("broker", row["revision"], if_revision)
            if not row["is_active"]:
                raise BrokerInactive("activate the broker before it becomes the default")
            if row["is_default"]:
                return row
            # Two statements in a transaction that excludes other changes. Deferrable constraints
            # failed in 40 % of the changes by four writers. A single UPDATE of both rows fails or
            # not, depending on the rows' order.
            clear = sa.update(brokers).where(brokers.c.is_default).values(is_default=False)
            cleared = await connection.scalar(clear.returning(brokers.c.id))
            make = sa.update(brokers).where(brokers.c.id == broker_id).values(is_default=True)
            await connection.execute(make)
            await audit.record(
                connection,
                "broker.set_default",
                str(broker_id),
                before={"default_broker_id": cleared},
                after={"default_broker_id": broker_id},
            )
            if cleared is not None:
                # The audit log has a line for the previous default too.
                await audit.record(
                    connection,
                    "broker.set_default",
                    str(cleared),
                    before={"is_default": True},
                    after={"is_default": False},
                )
            return await broker_of(connection, broker_id)

    async def encryption_key_ids(self) -> set[int]:
        """The ids of the keys with which brokers' passwords are encrypted."""
        head = sa.func.substring(brokers.c.password_encrypted, 1, HEADER_BYTES)
        query = sa.select(head).distinct().where(brokers.c.password_encrypted.is_not(None))
        async with reading(self._engine) as connection:
            return {key_id_of(found) for found in (await connection.execute(query)).scalars()}

    async def _password_after(
        self, connection: AsyncConnection, before: Row, values: Mapping[str, Any]
    ) -> bytes | None:
        """The stored password after a change to `values`, which may contain a password, or None.
        Raises `InvalidInput` if the password would be sent to another destination.
        """
        is_given, password = "password" in values, values.get("password")
        kept: bytes | None = None if is_given and password is None else before["password_encrypted"]
        if password is None and kept is None:
            return None
        after = {**before, **values}
        destination = await destination_in(connection, after)
        if password is not None:
            if self._passwords.is_current(before["id"], kept, password, destination):
                return kept
            return self._passwords.sealed(before["id"], password, destination)
        change = Change(
            before["id"],
            await destination_in(connection, before),
            destination,
            was_managed=bool(before["management"]),
        )
        return kept and self._passwords.kept_through(
            change,
            kept,
            is_managed=bool(after["management"]),
            by_admin=role.get() is Access.ADMIN,
        )


def _conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    conditions = [
        brokers.c[name] == value
        for name in ("is_active", "is_default", "region", "protocol")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.labels:
        conditions.append(brokers.c.labels.contains(dict(wanted.labels)))
    if wanted.name:
        conditions.append(brokers.c.name.icontains(wanted.name, autoescape=True))
    if wanted.certificate_id is not None:
        named = (brokers.c.ca_certificate_id, brokers.c.client_certificate_id)
        conditions.append(sa.or_(*(column == wanted.certificate_id for column in named)))
    if wanted.ids:
        conditions.append(brokers.c.id.in_(wanted.ids))
    return conditions


def is_usable(within: Fleets) -> sa.ColumnElement[bool]:
    """Whether one of the fleets may use a broker. A fleet that is not restricted may use any
    broker.
    """
    if within is None:
        return sa.true()
    theirs = is_within(fleets.c.id, within)
    unrestricted = sa.select(fleets.c.id).where(theirs, ~fleets.c.is_restricted)
    allowing = is_within(fleet_brokers.c.fleet_id, within)
    allowed = sa.select(fleet_brokers.c.broker_id).where(allowing)
    return sa.or_(sa.exists(unrestricted), brokers.c.id.in_(allowed))
