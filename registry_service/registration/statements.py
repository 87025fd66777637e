"""The statements of registering: each takes a batch, and changes it in one round trip."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from registry_service.provisioning import ProvisioningKey, grant
from registry_service.registration.records import NewDevice, Renewal, Telling
from registry_service.tables import devices, provisioning_keys

Row = sa.Row[*tuple[Any, ...]]

KEY_COLUMNS = (
    provisioning_keys.c.id.label("key_id"),
    provisioning_keys.c.fleet_id.label("key_fleet_id"),
    provisioning_keys.c.is_active.label("key_is_active"),
    provisioning_keys.c.expires_at,
    provisioning_keys.c.max_devices,
    provisioning_keys.c.devices_provisioned,
    provisioning_keys.c.default_broker_id,
)


async def create(
    connection: AsyncConnection, new: Sequence[NewDevice], now: datetime
) -> dict[str, tuple[int, datetime]]:
    """Inserts what the keys' limits allow and counts it; the id and time of each, by uuid."""
    wanted: dict[UUID, list[NewDevice]] = {}
    for device in new:
        wanted.setdefault(device.key_id, []).append(device)
    # In the order of their ids, so that replicas wait for one another and never in a circle.
    lock = (
        sa.select(*KEY_COLUMNS)
        .where(provisioning_keys.c.id == sa.any_(sa.literal(list(wanted), sa.ARRAY(sa.Uuid))))
        .order_by(provisioning_keys.c.id)
        .with_for_update(key_share=True)
    )
    granted: list[NewDevice] = []
    for row in (await connection.execute(lock)).all():
        key = key_of_row(row)
        if key is not None:
            granted += wanted[key.id][: grant(key, len(wanted[key.id]), now)]
    if not granted:
        return {}
    granted.sort(key=lambda device: device.registration.uuid)
    rows = (await connection.execute(insert_of(granted))).all()
    key_of = {device.registration.uuid: device.key_id for device in granted}
    inserted: dict[UUID, int] = {}
    for row in rows:
        inserted[key_of[row.uuid]] = inserted.get(key_of[row.uuid], 0) + 1
    if inserted:
        count = rows_of(
            "made",
            key_id=(sa.Uuid, list(inserted)),
            n=(sa.Integer, list(inserted.values())),
        )
        await connection.execute(
            sa.update(provisioning_keys)
            .where(provisioning_keys.c.id == count.c.key_id)
            .values(
                devices_provisioned=provisioning_keys.c.devices_provisioned + count.c.n,
                last_used_at=now,
            )
        )
    return {row.uuid: (row.id, row.created_at) for row in rows}


def insert_of(granted: Sequence[NewDevice]) -> sa.Executable:
    """Inserts what is not there yet; returns what was inserted."""
    columns: dict[str, tuple[type[Any], list[Any]]] = {
        name: (sa.Text, [getattr(device.registration, name) for device in granted])
        for name in (
            "uuid",
            "device_name",
            "device_type",
            "application_id",
            "mac_address",
            "os_version",
            "agent_version",
            "region",
        )
    }
    columns |= {
        "latitude": (sa.Double, [device.registration.latitude for device in granted]),
        "longitude": (sa.Double, [device.registration.longitude for device in granted]),
        "fleet_id": (sa.Text, [device.placement.fleet_id for device in granted]),
        "mqtt_broker_id": (sa.Integer, [device.placement.broker_id for device in granted]),
        "mqtt_username": (sa.Text, [device.username for device in granted]),
        "mqtt_password_hash": (sa.Text, [device.credentials.password_hash for device in granted]),
        "credential_salt": (sa.Text, [device.credentials.salt for device in granted]),
        "credential_key_id": (sa.Integer, [device.credentials.key_id for device in granted]),
        "api_key_hash": (sa.LargeBinary, [device.credentials.api_key_hash for device in granted]),
        "provisioned_by_key_id": (sa.Uuid, [device.key_id for device in granted]),
    }
    told = (sa.Text, [array_of(device.told_broker_ids) for device in granted])
    given = rows_of("given", **columns, told=told)
    selected = sa.select(
        *(given.c[name] for name in columns),
        sa.cast(given.c.told, sa.ARRAY(sa.Integer)),
        sa.func.now(),
    )
    return (
        postgresql.insert(devices)
        .from_select([*columns, "told_broker_ids", "told_at"], selected, include_defaults=False)
        .on_conflict_do_nothing(index_elements=["uuid"])
        .returning(devices.c.id, devices.c.uuid, devices.c.created_at)
    )


async def lock(connection: AsyncConnection, device_ids: Collection[int]) -> None:
    """Takes the rows in the order of their ids, as everybody does who changes several."""
    await connection.execute(
        sa.select(devices.c.id)
        .where(devices.c.id == sa.any_(sa.literal(list(device_ids), sa.ARRAY(sa.BigInteger))))
        .order_by(devices.c.id)
        .with_for_update(key_share=True)
    )


async def renew(connection: AsyncConnection, renewals: Sequence[Renewal]) -> frozenset[int]:
    """Gives rows new credentials where that is allowed still; the ids of those that got them."""
    given = rows_of(
        "given",
        id=(sa.BigInteger, [renewal.device_id for renewal in renewals]),
        salt=(sa.Text, [renewal.credentials.salt for renewal in renewals]),
        server_key_id=(sa.Integer, [renewal.credentials.key_id for renewal in renewals]),
        provisioning_key_id=(sa.Uuid, [renewal.key_id for renewal in renewals]),
        api_key_hash=(sa.LargeBinary, [renewal.credentials.api_key_hash for renewal in renewals]),
        password_hash=(sa.Text, [renewal.credentials.password_hash for renewal in renewals]),
    )
    rows = await connection.execute(
        sa.update(devices)
        .where(devices.c.id == given.c.id, devices.c.reprovisioning_allowed)
        .values(
            credential_salt=given.c.salt,
            credential_key_id=given.c.server_key_id,
            provisioned_by_key_id=given.c.provisioning_key_id,
            api_key_hash=given.c.api_key_hash,
            mqtt_password_hash=given.c.password_hash,
            reprovisioning_allowed=False,
            provisioned_at=sa.func.now(),
        )
        .returning(devices.c.id)
    )
    return frozenset(rows.scalars())


async def tell(connection: AsyncConnection, tellings: Sequence[Telling]) -> None:
    """Notes what devices are about to be told."""
    given = rows_of(
        "given",
        id=(sa.BigInteger, [telling.device_id for telling in tellings]),
        told=(sa.Text, [array_of(telling.broker_ids) for telling in tellings]),
    )
    await connection.execute(
        sa.update(devices)
        .where(devices.c.id == given.c.id)
        .values(told_broker_ids=sa.cast(given.c.told, sa.ARRAY(sa.Integer)), told_at=sa.func.now())
    )


def rows_of(name: str, **columns: tuple[Any, Sequence[Any]]) -> sa.TableValuedAlias:
    """Arrays as the columns of a table: one statement and one plan, however large the batch."""
    arrays = [
        sa.cast(sa.literal(list(values), sa.ARRAY(kind)), sa.ARRAY(kind))
        for kind, values in columns.values()
    ]
    table = sa.func.unnest(*arrays).table_valued(
        *(sa.column(column, kind) for column, (kind, _) in columns.items()), name=name
    )
    return table.render_derived()


def array_of(broker_ids: Sequence[int]) -> str:
    """PostgreSQL's text form; arrays of arrays would be flattened by unnest."""
    return "{" + ",".join(map(str, broker_ids)) + "}"


def key_of_row(row: Row) -> ProvisioningKey | None:
    """The key in a row of `KEY_COLUMNS`; None where an outer join found none."""
    if row.key_id is None:
        return None
    return ProvisioningKey(
        id=row.key_id,
        fleet_id=row.key_fleet_id,
        is_active=row.key_is_active,
        expires_at=row.expires_at,
        max_devices=row.max_devices,
        devices_provisioned=row.devices_provisioned,
        default_broker_id=row.default_broker_id,
    )
