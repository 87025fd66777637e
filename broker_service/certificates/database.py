"""The statements that all changes of certificates share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from broker_service.certificates.reading import Certificate
from broker_service.encryption import EncryptionKeys, place_of
from broker_service.errors import CertificateNotFound
from broker_service.tables import brokers, certificates
from chassis import audit
from chassis.revisions import revision_of_values

Row = sa.RowMapping

# The ids of the brokers that use a certificate, in order.
_broker_ids = (
    sa.select(brokers.c.id)
    .where(
        sa.or_(
            brokers.c.ca_certificate_id == certificates.c.id,
            brokers.c.client_certificate_id == certificates.c.id,
        )
    )
    .order_by(brokers.c.id)
)
# A certificate without its private key, which is not read.
whole = sa.select(
    *(column for column in certificates.c if column.name != "private_key_encrypted"),
    certificates.c.private_key_encrypted.is_not(None).label("has_private_key"),
    sa.func.array(_broker_ids.correlate(certificates).scalar_subquery()).label("broker_ids"),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """The id of a certificate, and whether it was stored just now."""

    id: int
    is_new: bool


async def certificate_of(
    connection: AsyncConnection, certificate_id: int, *, is_locked: bool = False
) -> Row:
    """The row without its private key, with `has_private_key` and `broker_ids`.

    Raises `CertificateNotFound`.
    """
    query = whole.where(certificates.c.id == certificate_id)
    if is_locked:
        # Transactions that would add a reference to the certificate wait.
        query = query.with_for_update(of=certificates)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise CertificateNotFound("there is no such certificate")
    return row


def revision_of(row: Mapping[Any, Any]) -> int:
    """The revision of a certificate: only its name can change. The id is in it too, so that a
    certificate that was uploaded again has another one.
    """
    return revision_of_values([row["id"], row["name"]])


async def kept(connection: AsyncConnection, given: Certificate, keys: EncryptionKeys) -> Kept:
    """Stores the certificate, unless it exists. If it exists without its private key, the key is
    added.
    """
    row = {
        "kind": given.kind,
        "name": given.name,
        "pem": given.pem,
        "fingerprint_sha256": given.fingerprint_sha256,
        "subject": given.subject,
        "issuer": given.issuer,
        "not_before": given.not_before,
        "not_after": given.not_after,
    }
    insert = postgresql.insert(certificates).values(row).on_conflict_do_nothing()
    made: int | None = await connection.scalar(insert.returning(certificates.c.id))
    found = (
        made
        or (
            await connection.execute(
                sa.select(certificates.c.id).where(
                    certificates.c.kind == given.kind,
                    certificates.c.fingerprint_sha256 == given.fingerprint_sha256,
                )
            )
        ).scalar_one()
    )
    if given.private_key is not None:
        # The private key is encrypted for its row, so the row's id must be known.
        sealed = keys.encrypt(given.private_key, place=private_key_place(found))
        await connection.execute(
            sa.update(certificates)
            .where(certificates.c.id == found, certificates.c.private_key_encrypted.is_(None))
            .values(private_key_encrypted=sealed)
        )
    if made is not None:
        shown = audit_fields(await certificate_of(connection, made))
        await audit.record(connection, "certificate.create", str(made), after=shown)
    return Kept(found, made is not None)


def private_key_place(certificate_id: int) -> str:
    """The place of the private key, for its encryption."""
    return place_of("certificates", "private_key_encrypted", certificate_id)


def audit_fields(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields of the audit log for a certificate that is added or deleted."""
    names = ("kind", "name", "fingerprint_sha256", "subject", "not_after", "has_private_key")
    return {name: row[name] for name in names}
