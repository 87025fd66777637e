"""The parts that all changes of a broker share: transaction, revision and audit log."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.destinations import Destination, destination_of
from broker_service.differences import differences
from broker_service.errors import (
    BrokerInUse,
    BrokerIsDefault,
    BrokerNameTaken,
    BrokerNotFound,
    BrokerUnknown,
    CertificateUnknown,
)
from broker_service.pem import united
from broker_service.tables import brokers, certificates, history
from chassis import audit
from chassis.database import take_turns, writing
from chassis.errors import InvalidInput, LostRace, counted
from chassis.log import actor
from domain.turns import PLACEMENT

Row = sa.RowMapping

_client = certificates.alias("client")
_ca = certificates.alias("ca")
_next_ca = certificates.alias("next_ca")
# The brokers with the PEM of their certificates.
all_brokers = sa.select(
    brokers,
    _ca.c.pem.label("ca_cert"),
    _next_ca.c.id.label("next_ca_id"),
    _next_ca.c.pem.label("next_ca_cert"),
    _client.c.pem.label("client_cert"),
).select_from(
    brokers.outerjoin(_ca, brokers.c.ca_certificate_id == _ca.c.id)
    .outerjoin(_next_ca, _ca.c.replacement_id == _next_ca.c.id)
    .outerjoin(_client, brokers.c.client_certificate_id == _client.c.id)
)
_next = certificates.alias("next_ca")
_bundle = sa.select(certificates.c.pem, _next.c.pem.label("next_pem")).outerjoin_from(
    certificates, _next, certificates.c.replacement_id == _next.c.id
)


@contextlib.asynccontextmanager
async def changing(
    engine: AsyncEngine,
    *,
    validate_only: bool = False,
    fact_of: Callable[[IntegrityError], Exception] | None = None,
) -> AsyncIterator[AsyncConnection]:
    """A transaction that changes brokers, pools or regions; the history names the current actor.
    Only one such transaction runs at a time. With `validate_only` it is rolled back at its end,
    after the database has checked its rules. Raises the error that a violated constraint stands
    for: `fact_of` gives it, for anything but brokers.
    """
    try:
        async with writing(engine) as connection:
            await take_turns(connection, PLACEMENT)
            acting = sa.func.set_config("mooring.actor", actor.get(), True)
            await connection.execute(sa.select(acting))
            yield connection
            if validate_only:
                await connection.rollback()
    except IntegrityError as error:
        raise (fact_of or _fact_of)(error) from None


async def broker_of(
    connection: AsyncConnection,
    broker_id: int,
    *conditions: sa.ColumnElement[bool],
    is_locked: bool = False,
) -> Row:
    """The broker's row. Raises `BrokerNotFound`, also for a broker that does not meet the
    conditions.
    """
    query = all_brokers.where(brokers.c.id == broker_id, *conditions)
    if is_locked:
        # With a key share lock, registrations with a pin to the broker do not wait.
        query = query.with_for_update(of=brokers, key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise BrokerNotFound("there is no such broker")
    return row


async def require_broker(connection: AsyncConnection, broker_id: int, *, field: str) -> bool:
    """Whether the broker is active. It cannot be deleted before the transaction has ended. Raises
    `BrokerUnknown` for `field` if there is none.
    """
    query = sa.select(brokers.c.is_active).where(brokers.c.id == broker_id)
    is_active = await connection.scalar(query.with_for_update(read=True, key_share=True))
    if is_active is None:
        raise BrokerUnknown("there is no such broker", field=field)
    return bool(is_active)


async def require_backup(
    connection: AsyncConnection, before: Mapping[Any, Any] | None, columns: Mapping[Any, Any]
) -> None:
    """Raises `BrokerUnknown` if the columns name a backup that does not exist. A backup that the
    broker has already is not checked again.
    """
    backup_id = columns.get("backup_broker_id")
    if backup_id is not None and (before is None or before["backup_broker_id"] != backup_id):
        await require_broker(connection, backup_id, field="backup_broker_id")


async def destination_in(connection: AsyncConnection, columns: Mapping[Any, Any]) -> Destination:
    """The destination of a broker with these columns, with the CA certificates as they are now."""
    certificate_id = columns["ca_certificate_id"]
    if certificate_id is None:
        return destination_of(columns, None)
    query = _bundle.where(certificates.c.id == certificate_id)
    row = (await connection.execute(query)).one_or_none()
    return destination_of(columns, None if row is None else bundle_of(row.pem, row.next_pem))


def bundle_of(pem: str | None, next_pem: str | None) -> str | None:
    """The trusted CA certificates; during a rotation, both."""
    return pem if pem is None or next_pem is None else united(pem, next_pem)


def ca_cert_of(row: Row) -> str | None:
    """The CA certificates of a row of `all_brokers`, as in answers to devices."""
    return bundle_of(row["ca_cert"], row["next_ca_cert"])


async def replace_secret(
    connection: AsyncConnection, broker_id: int, kept: bytes, renewed: bytes
) -> None:
    """Replaces the stored secret `kept` by `renewed` in the broker and its history, without a new
    revision.
    """
    await set_reencrypting(connection, is_on=True)
    for owner in (brokers.c.id, history.c.broker_id):
        secret = owner.table.c.password_encrypted
        update = sa.update(owner.table).where(owner == broker_id, secret == kept)
        await connection.execute(update.values(password_encrypted=renewed))
    await set_reencrypting(connection, is_on=False)


async def set_reencrypting(connection: AsyncConnection, *, is_on: bool) -> None:
    """With `is_on`, writing passwords makes no revision in this transaction: see `revise_broker`
    (migrations).
    """
    setting = sa.func.set_config("mooring.reencrypting", "on" if is_on else "off", True)
    await connection.execute(sa.select(setting))


async def audited(
    connection: AsyncConnection, action: str, before: Row | None, after: Row | None
) -> None:
    """Writes the changed fields to the audit log, if there are any."""
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


def constraint_of(error: IntegrityError) -> tuple[str, str]:
    """The name of the violated constraint, and the details that its check gave."""
    diagnosis: Any = getattr(error.orig, "diag", None)
    if diagnosis is None:
        return "", ""
    return diagnosis.constraint_name or "", diagnosis.message_detail or ""


def in_words(usage: Mapping[str, int]) -> str:
    """The counts that are not 0, such as "2 fleets, 1 key"."""
    return ", ".join(
        f"{count} {(who if count > 1 else who[:-1]).replace('_', ' ')}"
        for who, count in usage.items()
        if count
    )


def _fact_of(error: IntegrityError) -> Exception:
    constraint, detail = constraint_of(error)
    match constraint:
        case "mqtt_broker_config_name_key":
            return BrokerNameTaken("another broker has this name", field="name")
        case "mqtt_broker_config_pkey":
            return LostRace("another request has restored the broker")
        case "default_is_active":
            return BrokerIsDefault("make another broker the default first", field="is_active")
        case "default_is_kept":
            return BrokerIsDefault("make another broker the default first")
        case "at_most_one_default":
            return LostRace("another request has set another default")
        case "used_is_kept":
            usage = counted(detail)
            return BrokerInUse(
                f"used by {in_words(usage)}: move them to another broker first", usage=usage
            )
        case "backup_is_another":
            return InvalidInput("must be another broker", field="backup_broker_id")
        case "ca_certificate_is_there" | "client_certificate_is_there" as name:
            field = name.replace("_is_there", "_id")
            return CertificateUnknown("there is no such certificate", field=field)
    if isinstance(error.orig, ForeignKeyViolation):
        return BrokerInUse("a device, fleet, key, region, pool or broker refers to this broker")
    return error
