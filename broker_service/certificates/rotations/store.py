"""Rotations in the database: the row of a certificate names its replacement."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.certificates.database import Row, certificate_of, kept
from broker_service.certificates.reading import CA, Certificate
from broker_service.certificates.rotations.database import (
    NOT_ROTATING,
    adapting_passwords,
    bundles_of,
    devices_told,
    rotation_of,
)
from broker_service.certificates.rotations.progress import CertificateRotation, Notified
from broker_service.database import changing
from broker_service.encryption import EncryptionKeys
from broker_service.errors import (
    CertificateNotFound,
    CertificateUnknown,
    RotationNotFound,
    RotationTooEarly,
    RotationUnderWay,
)
from broker_service.passwords import Passwords
from broker_service.tables import (
    brokers,
    certificates,
)
from chassis import audit
from chassis.database import reading
from chassis.errors import InvalidInput


class RotationStore:
    """A rotation is identified by the id of the certificate that is replaced. Changes of a CA with
    which managed brokers are verified raise `Forbidden`, unless the actor is an administrator.
    """

    def __init__(self, engine: AsyncEngine, keys: EncryptionKeys) -> None:
        """`engine` connects as mooring_broker."""
        self._engine = engine
        self._keys = keys
        self._passwords = Passwords(keys)

    async def kind_of(self, certificate_id: int) -> str:
        """The kind of the certificate, which its replacement must have too. Raises
        `CertificateNotFound`.
        """
        async with reading(self._engine) as connection:
            return str((await certificate_of(connection, certificate_id))["kind"])

    async def stage(
        self, certificate_id: int, replacement: int | Certificate, threshold_percent: int
    ) -> CertificateRotation:
        """Starts the overlap. Raises `CertificateNotFound`, `CertificateUnknown`,
        `RotationUnderWay`, `InvalidInput`.
        """
        async with changing(self._engine) as connection:
            old = await certificate_of(connection, certificate_id, is_locked=True)
            new = await self._replacement(connection, replacement)
            _require_fit(old, new)
            await _require_apart(connection, old, new)
            staged = {
                "replacement_id": new["id"],
                "rotation_began_at": sa.func.now(),
                "rotation_threshold_percent": threshold_percent,
            }
            async with adapting_passwords(connection, certificate_id, self._passwords):
                await _set(connection, certificate_id, staged)
            await audit.record(
                connection,
                "rotation.stage",
                str(certificate_id),
                after={
                    "replacement_id": new["id"],
                    "threshold_percent": threshold_percent,
                    "broker_ids": old["broker_ids"],
                },
            )
            return await rotation_of(connection, certificate_id)

    async def rotation(self, certificate_id: int) -> CertificateRotation:
        """Raises `CertificateNotFound`, `RotationNotFound`."""
        async with reading(self._engine) as connection:
            return await rotation_of(connection, certificate_id)

    async def devices_after(
        self, certificate_id: int, which: Notified, device_id: int | None, limit: int
    ) -> Sequence[tuple[int, str]]:
        """Ids and uuids of the next active devices that were notified of these certificates, in the
        order of their ids.

        Raises `CertificateNotFound`, `RotationNotFound`.
        """
        async with reading(self._engine) as connection:
            rotation = await rotation_of(connection, certificate_id)
            counted = await bundles_of(
                connection, rotation.broker_ids, (certificate_id, rotation.replacement_id)
            )
            bundles = [bundle for bundle in counted if which is rotation.notified_of(bundle[1])]
            if not bundles:
                return []
            page = devices_told(bundles, device_id or 0, limit)
            return [(row.id, row.uuid) for row in await connection.execute(page)]

    async def cut_over(self, certificate_id: int, *, is_forced: bool) -> Row:
        """Makes all brokers use only the replacement; returns its row.

        Raises `CertificateNotFound`, `RotationNotFound`, `RotationTooEarly` with the counts.
        """
        async with changing(self._engine) as connection:
            old = await certificate_of(connection, certificate_id, is_locked=True)
            rotation = await rotation_of(connection, certificate_id)
            too_early = rotation.too_early(datetime.now(UTC))
            if too_early and not is_forced:
                raise RotationTooEarly(too_early, usage=rotation.usage)
            used = (
                brokers.c.ca_certificate_id
                if old["kind"] == CA
                else brokers.c.client_certificate_id
            )
            async with adapting_passwords(connection, certificate_id, self._passwords):
                await connection.execute(
                    sa.update(brokers)
                    .where(used == certificate_id)
                    .values({used: rotation.replacement_id})
                )
                await _clear(connection, certificate_id)
            await audit.record(
                connection,
                "rotation.cut_over",
                str(certificate_id),
                after={
                    "replacement_id": rotation.replacement_id,
                    "broker_ids": rotation.broker_ids,
                    "is_forced": bool(too_early),
                    "devices_told": rotation.usage,
                },
            )
            return await certificate_of(connection, rotation.replacement_id)

    async def cancel(self, certificate_id: int) -> None:
        """Raises `CertificateNotFound`, `RotationNotFound`."""
        async with changing(self._engine) as connection:
            old = await certificate_of(connection, certificate_id, is_locked=True)
            if old["replacement_id"] is None:
                raise RotationNotFound(NOT_ROTATING)
            async with adapting_passwords(connection, certificate_id, self._passwords):
                await _clear(connection, certificate_id)
            await audit.record(
                connection,
                "rotation.cancel",
                str(certificate_id),
                before={"replacement_id": old["replacement_id"]},
            )

    async def _replacement(
        self, connection: AsyncConnection, replacement: int | Certificate
    ) -> Row:
        if isinstance(replacement, Certificate):
            which = await kept(connection, replacement, self._keys)
            return await certificate_of(connection, which.id)
        try:
            return await certificate_of(connection, replacement)
        except CertificateNotFound:
            raise CertificateUnknown(
                "there is no such certificate", field="replacement_id"
            ) from None


def _require_fit(old: Row, new: Row) -> None:
    """Raises `InvalidInput` for a certificate that cannot replace `old`."""
    if new["id"] == old["id"]:
        raise InvalidInput("is the certificate itself", field="replacement")
    if new["kind"] != old["kind"]:
        raise InvalidInput(f"must be a {old['kind']} certificate too", field="replacement")
    if new["not_after"] <= datetime.now(UTC):
        raise InvalidInput(f"expired on {new['not_after']:%Y-%m-%d}", field="replacement")
    if old["has_private_key"] and not new["has_private_key"]:
        raise InvalidInput("has no private key, and the old one has", field="replacement")


async def _require_apart(connection: AsyncConnection, old: Row, new: Row) -> None:
    """Raises `RotationUnderWay` if this certificate is itself being replaced."""
    if old["replacement_id"] is not None:
        raise RotationUnderWay(f"certificate {old['replacement_id']} is replacing it already")
    if new["replacement_id"] is not None:
        raise RotationUnderWay(f"certificate {new['id']} is being replaced itself")
    replacing = sa.select(certificates.c.id).where(certificates.c.replacement_id == old["id"])
    other = await connection.scalar(replacing.limit(1))
    if other is not None:
        raise RotationUnderWay(f"it is replacing certificate {other}: cut that over first")


async def _clear(connection: AsyncConnection, certificate_id: int) -> None:
    names = ("replacement_id", "rotation_began_at", "rotation_threshold_percent")
    await _set(connection, certificate_id, dict.fromkeys(names))


async def _set(
    connection: AsyncConnection, certificate_id: int, values: Mapping[str, object]
) -> None:
    await connection.execute(
        sa.update(certificates).where(certificates.c.id == certificate_id).values(values)
    )
