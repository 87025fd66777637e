"""The state of a rotation: its brokers, and the certificates in the last answers to devices."""

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from broker_service.certificates.database import certificate_of
from broker_service.certificates.reading import CA
from broker_service.certificates.rotations.progress import CertificateRotation, counted
from broker_service.database import Row, destination_in, replace_secret
from broker_service.errors import RotationNotFound
from broker_service.passwords import Change, Passwords
from broker_service.tables import brokers, device_count_changes, device_counts, devices
from chassis.errors import Forbidden
from chassis.trust import Access, role

NOT_ROTATING = "the certificate is not being replaced"
NEEDS_ADMIN = (
    "brokers that Mooring manages are verified with this CA, so replacing it needs the role admin"
)

# The first broker of an answer, and the CA certificates of all its brokers.
Bundle = tuple[int, tuple[int, ...]]


async def rotation_of(connection: AsyncConnection, certificate_id: int) -> CertificateRotation:
    """Raises `CertificateNotFound`, `RotationNotFound`."""
    old = await certificate_of(connection, certificate_id)
    if old["replacement_id"] is None:
        raise RotationNotFound(NOT_ROTATING)
    new = await certificate_of(connection, old["replacement_id"])
    counts = None
    if old["kind"] == CA:
        bundles = await bundles_of(connection, old["broker_ids"], (old["id"], new["id"]))
        counts = counted(
            ((ca_ids, number) for (_, ca_ids), number in bundles.items()),
            old_id=old["id"],
            new_id=new["id"],
        )
    return CertificateRotation(
        certificate_id=old["id"],
        replacement_id=new["id"],
        began_at=old["rotation_began_at"],
        threshold_percent=old["rotation_threshold_percent"],
        broker_ids=old["broker_ids"],
        not_before=new["not_before"],
        not_after=new["not_after"],
        kind=new["kind"],
        replacement_pem=new["pem"],
        counts=counts,
    )


async def bundles_of(
    connection: AsyncConnection, broker_ids: Sequence[int], ca_ids: Sequence[int]
) -> Mapping[Bundle, int]:
    """The number of active devices by the first broker and the CA certificates of their last
    answer: of answers that begin with one of these brokers, or that have one of these certificates,
    for example with a fallback.
    """
    integers = sa.ARRAY(sa.Integer)
    kinds = sa.union_all(
        *(
            sa.select(table.c.told_broker_id, table.c.told_ca_ids, table.c.devices).where(
                sa.or_(
                    table.c.told_broker_id == sa.any_(sa.literal(broker_ids, integers)),
                    table.c.told_ca_ids.op("&&")(sa.literal(ca_ids, integers)),
                )
            )
            for table in (device_counts, device_count_changes)
        )
    ).subquery()
    number = sa.func.sum(kinds.c.devices)
    query = (
        sa.select(kinds.c.told_broker_id, kinds.c.told_ca_ids, number.label("devices"))
        .group_by(kinds.c.told_broker_id, kinds.c.told_ca_ids)
        .having(number > 0)
    )
    rows = await connection.execute(query)
    return {(row.told_broker_id, tuple(row.told_ca_ids)): int(row.devices) for row in rows}


def devices_told(
    bundles: Collection[Bundle], device_id: int, limit: int
) -> sa.Select[tuple[int, str]]:
    """Ids and uuids, in order, of active devices after `device_id` whose last answer had one of
    `bundles`.
    """
    asked = (
        sa.values(sa.column("broker_id", sa.Integer), sa.column("ca_ids", sa.ARRAY(sa.Integer)))
        .data([(broker_id, list(ca_ids)) for broker_id, ca_ids in bundles])
        .alias("asked")
    )
    page = (
        sa.select(devices.c.id, devices.c.uuid)
        .where(devices.c.is_active, devices.c.id > device_id)
        .order_by(devices.c.id)
        .limit(limit)
    )
    none = sa.literal([], sa.ARRAY(sa.Integer))
    # For each bundle, a range of the index `devices_told`.
    noted = page.where(
        devices.c.told_ca_ids != none,
        devices.c.told_broker_ids[1] == asked.c.broker_id,
        devices.c.told_ca_ids == asked.c.ca_ids,
    ).lateral("noted")
    # The index lacks answers without certificates: the broker had no CA, or the answer is older
    # than the recording of certificates.
    brokers_without = [broker_id for broker_id, ca_ids in bundles if not ca_ids]
    rest = page.where(
        devices.c.told_ca_ids == none, devices.c.told_broker_ids[1].in_(brokers_without)
    ).subquery("rest")
    found = sa.union_all(
        sa.select(noted.c.id, noted.c.uuid).select_from(asked.join(noted, sa.true())),
        sa.select(rest.c.id, rest.c.uuid),
    ).subquery("found")
    return sa.select(found.c.id, found.c.uuid).order_by(found.c.id).limit(limit)


@contextlib.asynccontextmanager
async def adapting_passwords(
    connection: AsyncConnection, certificate_id: int, passwords: Passwords
) -> AsyncIterator[None]:
    """Adapts passwords to a block that changes the trusted CAs of the brokers that use this
    certificate. If the actor is an administrator, the brokers' passwords are encrypted again for
    the new CAs. Otherwise, passwords of brokers that are not managed stay as they are, and
    `Forbidden` is raised if a managed broker would be affected.
    """
    chosen = (
        sa.select(brokers)
        .where(
            brokers.c.ca_certificate_id == certificate_id,
            brokers.c.password_encrypted.is_not(None),
        )
        .order_by(brokers.c.id)
        .with_for_update(key_share=True)
    )
    rows = (await connection.execute(chosen)).mappings().all()
    before = [await destination_in(connection, row) for row in rows]
    yield
    is_admin = role.get() is Access.ADMIN
    for row, was in zip(rows, before, strict=True):
        now = await destination_in(connection, await _row(connection, row["id"]))
        change = Change(row["id"], was, now, was_managed=bool(row["management"]))
        if was == now:
            continue
        if row["management"] and not is_admin:
            raise Forbidden(NEEDS_ADMIN)
        kept = row["password_encrypted"]
        if is_admin and passwords.is_for(row["id"], kept, was):
            await replace_secret(connection, row["id"], kept, passwords.moved(change, kept))


async def _row(connection: AsyncConnection, broker_id: int) -> Row:
    query = sa.select(brokers).where(brokers.c.id == broker_id)
    return (await connection.execute(query)).mappings().one()
