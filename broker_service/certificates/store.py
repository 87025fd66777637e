"""Certificates in the database."""

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.certificates.database import Row, audit_fields, certificate_of, kept, whole
from broker_service.certificates.reading import Certificate
from broker_service.database import changing
from broker_service.encryption import HEADER_BYTES, EncryptionKeys, key_id_of
from broker_service.errors import CertificateExists, CertificateInUse
from broker_service.tables import brokers, certificates, history
from chassis import audit
from chassis.database import reading


class CertificateStore:
    """Rows come from `certificates` without the private keys, which are never returned.

    They have `has_private_key` instead, and `broker_ids`, the brokers that use each.
    """

    def __init__(self, engine: AsyncEngine, keys: EncryptionKeys) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine
        self._keys = keys

    async def certificate(self, certificate_id: int) -> Row:
        """Raises `CertificateNotFound`."""
        async with reading(self._engine) as connection:
            return await certificate_of(connection, certificate_id)

    async def certificates_after(
        self,
        certificate_id: int | None,
        limit: int,
        kind: str | None,
        expires_within: timedelta | None,
    ) -> Sequence[Row]:
        """The next certificates, in the order of their ids. Expired certificates count as expiring
        within any time.
        """
        query = whole.where(certificates.c.id > (certificate_id or 0))
        if kind is not None:
            query = query.where(certificates.c.kind == kind)
        if expires_within is not None:
            query = query.where(certificates.c.not_after <= sa.func.now() + expires_within)
        async with reading(self._engine) as connection:
            found = await connection.execute(query.order_by(certificates.c.id).limit(limit))
            return found.mappings().all()

    async def create(self, given: Certificate) -> Row:
        """Raises `CertificateExists`."""
        async with changing(self._engine) as connection:
            which = await kept(connection, given, self._keys)
            if not which.is_new:
                raise CertificateExists(f"certificate {which.id} is the same")
            return await certificate_of(connection, which.id)

    async def rename(self, certificate_id: int, name: str) -> Row:
        """Raises `CertificateNotFound`."""
        async with changing(self._engine) as connection:
            before = await certificate_of(connection, certificate_id, is_locked=True)
            if before["name"] == name:
                return before
            await connection.execute(
                sa.update(certificates).where(certificates.c.id == certificate_id).values(name=name)
            )
            await audit.record(
                connection,
                "certificate.rename",
                str(certificate_id),
                before={"name": before["name"]},
                after={"name": name},
            )
            return await certificate_of(connection, certificate_id)

    async def delete(self, certificate_id: int) -> None:
        """Raises `CertificateNotFound`, `CertificateInUse` with the counts."""
        async with changing(self._engine) as connection:
            before = await certificate_of(connection, certificate_id, is_locked=True)
            usage = await _usage(connection, certificate_id)
            if any(usage.values()):
                users = ", ".join(f"{count} {who}" for who, count in usage.items() if count)
                raise CertificateInUse(f"used by {users}", usage=usage)
            await connection.execute(
                sa.delete(certificates).where(certificates.c.id == certificate_id)
            )
            await audit.record(
                connection, "certificate.delete", str(certificate_id), before=audit_fields(before)
            )

    async def encryption_key_ids(self) -> set[int]:
        """The ids of the keys with which private keys are encrypted."""
        sealed = certificates.c.private_key_encrypted
        head = sa.func.substring(sealed, 1, HEADER_BYTES)
        query = sa.select(head).distinct().where(sealed.is_not(None))
        async with reading(self._engine) as connection:
            return {key_id_of(found) for found in (await connection.execute(query)).scalars()}


async def _usage(connection: AsyncConnection, certificate_id: int) -> dict[str, int]:
    """How many brokers, revisions of brokers and rotations use the certificate."""

    def naming(table: sa.Table, *columns: sa.Column[int | None]) -> sa.ScalarSelect[int]:
        names = sa.or_(*(column == certificate_id for column in columns))
        return sa.select(sa.func.count()).select_from(table).where(names).scalar_subquery()

    counts = sa.select(
        naming(brokers, brokers.c.ca_certificate_id, brokers.c.client_certificate_id).label(
            "brokers"
        ),
        naming(history, history.c.ca_certificate_id, history.c.client_certificate_id).label(
            "revisions"
        ),
        naming(certificates, certificates.c.replacement_id).label("rotations"),
    )
    return dict((await connection.execute(counts)).mappings().one())
