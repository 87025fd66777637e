"""Certificates in the database."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.certificates.database import (
    Row,
    audit_fields,
    certificate_of,
    kept,
    revision_of,
    whole,
)
from broker_service.certificates.reading import Certificate
from broker_service.database import changing
from broker_service.encryption import HEADER_BYTES, EncryptionKeys, key_id_of
from broker_service.errors import CertificateExists, CertificateInUse
from broker_service.tables import (
    brokers,
    certificates,
    device_count_changes,
    device_counts,
    history,
)
from chassis import audit
from chassis.database import reading
from chassis.revisions import require_revision
from chassis.searching import Start, ordered


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which certificates a list has; a field that is None, or an empty text, excludes none."""

    kind: str | None = None
    # Expired certificates count as expiring within any time.
    expires_within: timedelta | None = None
    is_used: bool | None = None
    # A part of the name or the subject, in any case of letters.
    text: str = ""


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

    async def certificates_from(
        self, start: Start[int], limit: int, wanted: Wanted
    ) -> Sequence[Row]:
        """The next certificates, in the order of their ids."""
        query = ordered(
            _matching(wanted),
            start,
            certificates.c.id,
            texts=(certificates.c.name, certificates.c.subject),
            ids=(certificates.c.fingerprint_sha256,),
        )
        async with reading(self._engine) as connection:
            found = await connection.execute(query.limit(limit))
            rows: Sequence[Row] = found.mappings().all()
        return rows

    async def expiring_after(
        self, last: tuple[datetime, int] | None, limit: int, wanted: Wanted
    ) -> Sequence[Row]:
        """The next certificates after `last`, in the order of their expiry and ids."""
        place = sa.tuple_(certificates.c.not_after, certificates.c.id)
        query = _matching(wanted)
        if last is not None:
            query = query.where(place > last)
        ordered = query.order_by(certificates.c.not_after, certificates.c.id).limit(limit)
        async with reading(self._engine) as connection:
            rows: Sequence[Row] = (await connection.execute(ordered)).mappings().all()
        return rows

    async def id_of(self, kind: str, fingerprint_sha256: str) -> int | None:
        """The id of this certificate, if it is stored."""
        query = sa.select(certificates.c.id).where(
            certificates.c.kind == kind, certificates.c.fingerprint_sha256 == fingerprint_sha256
        )
        async with reading(self._engine) as connection:
            found: int | None = await connection.scalar(query)
            return found

    async def devices_of(self, rows: Sequence[Row]) -> Sequence[int]:
        """For each row, the active devices whose last answer named one of its brokers first."""
        ids = sorted({broker_id for row in rows for broker_id in row["broker_ids"]})
        if not ids:
            return [0] * len(rows)
        asked = sa.any_(sa.literal(ids, sa.ARRAY(sa.Integer)))
        kinds = sa.union_all(
            *(
                sa.select(table.c.told_broker_id, table.c.devices).where(
                    table.c.told_broker_id == asked
                )
                for table in (device_counts, device_count_changes)
            )
        ).subquery()
        query = sa.select(kinds.c.told_broker_id, sa.func.sum(kinds.c.devices)).group_by(
            kinds.c.told_broker_id
        )
        async with reading(self._engine) as connection:
            counts = {broker: int(count) for broker, count in await connection.execute(query)}
        return [sum(counts.get(broker, 0) for broker in row["broker_ids"]) for row in rows]

    async def create(self, given: Certificate) -> Row:
        """Raises `CertificateExists`."""
        async with changing(self._engine) as connection:
            which = await kept(connection, given, self._keys)
            if not which.is_new:
                raise CertificateExists(f"certificate {which.id} is the same")
            return await certificate_of(connection, which.id)

    async def rename(
        self, certificate_id: int, name: str, if_revision: Collection[int] = ()
    ) -> Row:
        """Raises `CertificateNotFound`, `LostRace`."""
        async with changing(self._engine) as connection:
            before = await certificate_of(connection, certificate_id, is_locked=True)
            require_revision("certificate", revision_of(before), if_revision)
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

    async def delete(self, certificate_id: int, if_revision: Collection[int] = ()) -> None:
        """Raises `CertificateNotFound`, `LostRace`, `CertificateInUse` with the counts."""
        async with changing(self._engine) as connection:
            before = await certificate_of(connection, certificate_id, is_locked=True)
            require_revision("certificate", revision_of(before), if_revision)
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


def _matching(wanted: Wanted) -> sa.Select[tuple[Any, ...]]:
    query = whole
    if wanted.kind is not None:
        query = query.where(certificates.c.kind == wanted.kind)
    if wanted.expires_within is not None:
        query = query.where(certificates.c.not_after <= sa.func.now() + wanted.expires_within)
    if wanted.is_used is not None:
        used = (
            sa.exists()
            .where(
                sa.or_(
                    brokers.c.ca_certificate_id == certificates.c.id,
                    brokers.c.client_certificate_id == certificates.c.id,
                )
            )
            .correlate(certificates)
        )
        query = query.where(used if wanted.is_used else ~used)
    if wanted.text:
        query = query.where(
            sa.or_(
                certificates.c.name.icontains(wanted.text, autoescape=True),
                certificates.c.subject.icontains(wanted.text, autoescape=True),
            )
        )
    return query


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
