"""What every change of a broker goes through: its transaction, its revision, the audit log."""

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.brokers.differences import differences
from broker_service.encryption import place_of
from broker_service.errors import (
    BrokerInUse,
    BrokerIsDefault,
    BrokerNameTaken,
    BrokerNotFound,
    CertificateUnknown,
)
from broker_service.tables import brokers, certificates
from chassis import audit
from chassis.database import PLACEMENT, take_turns, writing
from chassis.errors import LostRace, counted
from chassis.log import actor

Row = sa.RowMapping

whole = sa.select(brokers, certificates.c.pem.label("ca_cert")).outerjoin_from(
    brokers, certificates, brokers.c.ca_certificate_id == certificates.c.id
)


@contextlib.asynccontextmanager
async def changing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that changes brokers, in the history as the actor's who is served.

    There is one at a time. Raises the fact behind a constraint that refused.
    """
    try:
        async with writing(engine) as connection:
            await take_turns(connection, PLACEMENT)
            acting = sa.func.set_config("mooring.actor", actor.get(), True)
            await connection.execute(sa.select(acting))
            yield connection
    except IntegrityError as error:
        raise _fact_of(error) from None


async def broker_of(
    connection: AsyncConnection,
    broker_id: int,
    *conditions: sa.ColumnElement[bool],
    is_locked: bool = False,
) -> Row:
    """Raises `BrokerNotFound`, also for one that does not meet the conditions."""
    query = whole.where(brokers.c.id == broker_id, *conditions)
    if is_locked:
        # Registrations that point at it go on.
        query = query.with_for_update(of=brokers, key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise BrokerNotFound("there is no such broker")
    return row


def password_place(broker_id: int) -> str:
    """Where the broker's password is kept, as its encryption is told; in its history too."""
    return place_of("mqtt_broker_config", "password_encrypted", broker_id)


def require_revision(row: Row, if_revision: Collection[int]) -> None:
    """Raises `LostRace` unless the row has one of them, or none is asked for."""
    if if_revision and row["revision"] not in if_revision:
        raise LostRace(f"the broker has changed since: it is at revision {row['revision']}")


async def audited(
    connection: AsyncConnection, action: str, before: Row | None, after: Row | None
) -> None:
    """Writes what changed to the audit log; nothing where nothing did."""
    changes = differences(before, after)
    row = after or before
    if row is not None and changes:
        was = {name: change.before for name, change in changes.items()}
        became = {name: change.after for name, change in changes.items()}
        await audit.record(
            connection,
            action,
            str(row["id"]),
            before=None if before is None else was,
            after=None if after is None else became,
        )


def _fact_of(error: IntegrityError) -> Exception:
    diagnosis: Any = getattr(error.orig, "diag", None)
    match diagnosis and diagnosis.constraint_name:
        case "mqtt_broker_config_name_key":
            return BrokerNameTaken("another broker has this name", field="name")
        case "mqtt_broker_config_pkey":
            return LostRace("somebody else has brought it back")
        case "default_is_active":
            return BrokerIsDefault("make another broker the default first", field="is_active")
        case "default_is_kept":
            return BrokerIsDefault("make another broker the default first")
        case "at_most_one_default":
            return LostRace("somebody else has set another default")
        case "used_is_kept":
            usage = counted(diagnosis.message_detail or "")
            users = ", ".join(
                f"{count} {(who if count > 1 else who[:-1]).replace('_', ' ')}"
                for who, count in usage.items()
                if count
            )
            return BrokerInUse(f"used by {users}: move them to another broker first", usage=usage)
        case "ca_certificate_is_there" | "client_certificate_is_there" as name:
            field = name.replace("_is_there", "_id")
            return CertificateUnknown("there is no such certificate", field=field)
    if isinstance(error.orig, ForeignKeyViolation):
        return BrokerInUse("a device, fleet or provisioning key points at this broker")
    return error
