"""Brokers and certificates in the database: the only SQL that changes them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.brokers.certificates import CaBundle
from broker_service.errors import (
    BrokerInactive,
    BrokerInUse,
    BrokerIsDefault,
    BrokerNameTaken,
    BrokerNotFound,
)
from broker_service.tables import brokers, certificates
from chassis.database import reading, writing
from chassis.errors import LostRace

# Any fixed number: those who swap the default take turns on it. Deferrable constraints failed in
# 40 % of the swaps of four writers, one UPDATE of both rows depending on the rows' order.
DEFAULT_SWAP_LOCK = 7_305_812

Row = sa.RowMapping

_whole = sa.select(brokers, certificates.c.pem.label("ca_cert")).outerjoin_from(
    brokers, certificates, brokers.c.ca_certificate_id == certificates.c.id
)


class BrokerStore:
    """Rows are those of `mqtt_broker_config`, with the CA's PEM text as `ca_cert`."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine

    async def broker(self, broker_id: int) -> Row:
        """Raises `BrokerNotFound`."""
        async with reading(self._engine) as connection:
            return await _broker(connection, broker_id)

    async def brokers_after(self, broker_id: int | None, limit: int) -> Sequence[Row]:
        """In the order of their ids."""
        query = _whole.where(brokers.c.id > (broker_id or 0)).order_by(brokers.c.id).limit(limit)
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).mappings().all()

    async def create(self, columns: Mapping[str, Any], ca: CaBundle | None) -> Row:
        """Raises `BrokerNameTaken`."""
        try:
            async with writing(self._engine) as connection:
                row = {**columns, "ca_certificate_id": await _certificate_id(connection, ca)}
                insert = sa.insert(brokers).values(row).returning(brokers.c.id)
                return await _broker(connection, (await connection.execute(insert)).scalar_one())
        except IntegrityError as error:
            raise _named(error) from None

    async def update(self, broker_id: int, decide: Callable[[Row], Mapping[str, Any]]) -> Row:
        """Changes the columns that `decide` names of the row as it is; nobody changes it meanwhile.

        A certificate is given under the name `ca_cert`, as a `CaBundle` or None. Raises
        `BrokerNotFound`, `BrokerNameTaken`, `BrokerIsDefault`, and whatever `decide` raises.
        """
        try:
            async with writing(self._engine) as connection:
                values = dict(decide(await _broker(connection, broker_id, is_locked=True)))
                if "ca_cert" in values:
                    bundle = values.pop("ca_cert")
                    values["ca_certificate_id"] = await _certificate_id(connection, bundle)
                if values:
                    await connection.execute(
                        sa.update(brokers).where(brokers.c.id == broker_id).values(values)
                    )
                return await _broker(connection, broker_id)
        except IntegrityError as error:
            raise _named(error) from None

    async def delete(self, broker_id: int) -> None:
        """Raises `BrokerNotFound`, `BrokerIsDefault`, `BrokerInUse`."""
        try:
            async with writing(self._engine) as connection:
                is_default = await connection.scalar(
                    sa.delete(brokers)
                    .where(brokers.c.id == broker_id)
                    .returning(brokers.c.is_default)
                )
                if is_default is None:
                    raise BrokerNotFound("there is no such broker")
                if is_default:
                    raise BrokerIsDefault("make another broker the default first")
        except IntegrityError as error:
            raise _named(error) from None

    async def set_default(self, broker_id: int) -> Row:
        """Raises `BrokerNotFound`, `BrokerInactive`, `LostRace`."""
        try:
            return await self._set_default(broker_id)
        except IntegrityError as error:
            raise _named(error) from None

    async def _set_default(self, broker_id: int) -> Row:
        async with writing(self._engine) as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(DEFAULT_SWAP_LOCK)))
            row = await _broker(connection, broker_id, is_locked=True)
            if not row["is_active"]:
                raise BrokerInactive("activate the broker before it becomes the default")
            if row["is_default"]:
                return row
            clear = sa.update(brokers).where(brokers.c.is_default).values(is_default=False)
            await connection.execute(clear)
            make = sa.update(brokers).where(brokers.c.id == broker_id).values(is_default=True)
            await connection.execute(make)
            return await _broker(connection, broker_id)


async def _broker(connection: AsyncConnection, broker_id: int, *, is_locked: bool = False) -> Row:
    query = _whole.where(brokers.c.id == broker_id)
    if is_locked:
        query = query.with_for_update(of=brokers)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise BrokerNotFound("there is no such broker")
    return row


async def _certificate_id(connection: AsyncConnection, ca: CaBundle | None) -> int | None:
    """The id under which the bundle is kept; the same one is kept once."""
    if ca is None:
        return None
    row = {
        "name": ca.name,
        "kind": "ca",
        "pem": ca.pem,
        "fingerprint_sha256": ca.fingerprint_sha256,
        "subject": ca.subject,
        "issuer": ca.issuer,
        "not_before": ca.not_before,
        "not_after": ca.not_after,
    }
    insert = postgresql.insert(certificates).values(row)
    kept = insert.on_conflict_do_update(
        index_elements=["kind", "fingerprint_sha256"], set_={"pem": insert.excluded.pem}
    )
    certificate_id: int = (await connection.execute(kept.returning(certificates.c.id))).scalar_one()
    return certificate_id


def _named(error: IntegrityError) -> Exception:
    """The fact behind a constraint that refused."""
    diagnosis = getattr(error.orig, "diag", None)
    match diagnosis and diagnosis.constraint_name:
        case "mqtt_broker_config_name_key":
            return BrokerNameTaken("another broker has this name", field="name")
        case "default_is_active":
            return BrokerIsDefault("make another broker the default first", field="is_active")
        case "at_most_one_default":
            return LostRace("somebody else has set another default")
    if isinstance(error.orig, ForeignKeyViolation):
        return BrokerInUse("a device, fleet or provisioning key points at this broker")
    return error
