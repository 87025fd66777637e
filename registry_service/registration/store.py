"""Devices and keys in the database, a batch in and a batch out."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.database import reading, writing
from registry_service.placements import Placement
from registry_service.provisioning import ProvisioningKey, grant
from registry_service.registration.records import Device, Known, NewDevice, Renewal, Saved, Telling
from registry_service.registration.request import Registration
from registry_service.tables import devices, fleets, provisioning_keys

Row = sa.Row[*tuple[Any, ...]]

_key_fleet = fleets.alias("key_fleet")
_device_fleet = fleets.alias("device_fleet")


def _has_rule(fleet: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.or_(fleet.c.mqtt_broker_id.is_not(None), fleet.c.is_restricted)


_device_columns = (
    devices.c.id.label("device_id"),
    devices.c.uuid,
    devices.c.device_name,
    devices.c.device_type,
    devices.c.fleet_id.label("device_fleet_id"),
    devices.c.mqtt_broker_id,
    devices.c.region,
    _has_rule(_device_fleet).label("device_fleet_has_rule"),
    devices.c.api_key_hash,
    devices.c.credential_key_id,
    devices.c.credential_salt,
    devices.c.provisioned_by_key_id,
    devices.c.is_active.label("device_is_active"),
    devices.c.reprovisioning_allowed,
    devices.c.told_broker_ids,
    devices.c.created_at,
)
_key_columns = (
    provisioning_keys.c.id.label("key_id"),
    provisioning_keys.c.fleet_id.label("key_fleet_id"),
    provisioning_keys.c.is_active.label("key_is_active"),
    provisioning_keys.c.expires_at,
    provisioning_keys.c.max_devices,
    provisioning_keys.c.devices_provisioned,
    provisioning_keys.c.default_broker_id,
)


class RegistrationStore:
    """Every method takes a batch. Raises `Unavailable` for a race or a lost connection."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def known_of(self, registrations: Sequence[Registration]) -> list[Known]:
        """One for each registration, in one round trip."""
        asked = _rows(
            "asked",
            n=(sa.Integer, range(len(registrations))),
            key_hash=(sa.LargeBinary, [item.key_hash for item in registrations]),
            uuid=(sa.Text, [item.uuid for item in registrations]),
        )
        query = (
            sa.select(
                *_key_columns, *_device_columns, _has_rule(_key_fleet).label("key_fleet_has_rule")
            )
            .select_from(
                asked.outerjoin(provisioning_keys, provisioning_keys.c.key_hash == asked.c.key_hash)
                .outerjoin(_key_fleet, _key_fleet.c.id == provisioning_keys.c.fleet_id)
                .outerjoin(devices, devices.c.uuid == asked.c.uuid)
                .outerjoin(_device_fleet, _device_fleet.c.id == devices.c.fleet_id)
            )
            .order_by(asked.c.n)
        )
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return [
            Known(_key(row), _device(row), _key_placement(row, registration.region))
            for row, registration in zip(rows, registrations, strict=True)
        ]

    async def devices_of(self, uuids: Sequence[str]) -> dict[str, Device]:
        """Those that are registered, by uuid."""
        query = (
            sa.select(*_device_columns)
            .join_from(devices, _device_fleet, _device_fleet.c.id == devices.c.fleet_id)
            .where(devices.c.uuid == sa.any_(sa.literal(list(uuids), sa.ARRAY(sa.Text))))
        )
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return {row.uuid: device for row in rows if (device := _device(row))}

    async def save(
        self,
        new: Sequence[NewDevice],
        renewals: Sequence[Renewal],
        tellings: Sequence[Telling],
        now: datetime,
    ) -> Saved:
        """All in one transaction, durable when it returns; what the keys' limits allow of `new`.

        Raises `DBAPIError` where the values are at fault.
        """
        created: dict[str, tuple[int, datetime]] = {}
        renewed: frozenset[int] = frozenset()
        if not (new or renewals or tellings):
            return Saved(created, renewed)
        async with writing(self._engine) as connection:
            if new:
                created = await _create(connection, new, now)
            if renewals:
                renewed = await _renew(connection, renewals)
            if tellings:
                await _tell(connection, tellings)
        return Saved(created, renewed)

    async def tell(self, tellings: Sequence[Telling]) -> None:
        """Notes what devices are about to be told."""
        if tellings:
            async with writing(self._engine) as connection:
                await _tell(connection, tellings)


async def _create(
    connection: AsyncConnection, new: Sequence[NewDevice], now: datetime
) -> dict[str, tuple[int, datetime]]:
    wanted: dict[UUID, list[NewDevice]] = {}
    for device in new:
        wanted.setdefault(device.key_id, []).append(device)
    # In the order of their ids, so that replicas wait for one another and never in a circle.
    lock = (
        sa.select(*_key_columns)
        .where(provisioning_keys.c.id == sa.any_(sa.literal(list(wanted), sa.ARRAY(sa.Uuid))))
        .order_by(provisioning_keys.c.id)
        .with_for_update(key_share=True)
    )
    granted: list[NewDevice] = []
    for row in (await connection.execute(lock)).all():
        key = _key(row)
        if key is not None:
            granted += wanted[key.id][: grant(key, len(wanted[key.id]), now)]
    if not granted:
        return {}
    granted.sort(key=lambda device: device.registration.uuid)
    rows = (await connection.execute(_insert(granted))).all()
    key_of = {device.registration.uuid: device.key_id for device in granted}
    inserted: dict[UUID, int] = {}
    for row in rows:
        inserted[key_of[row.uuid]] = inserted.get(key_of[row.uuid], 0) + 1
    if inserted:
        count = _rows(
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


def _insert(granted: Sequence[NewDevice]) -> sa.Executable:
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
    told = (sa.Text, [_array(device.told_broker_ids) for device in granted])
    given = _rows("given", **columns, told=told)
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


async def _renew(connection: AsyncConnection, renewals: Sequence[Renewal]) -> frozenset[int]:
    given = _rows(
        "given",
        id=(sa.BigInteger, [renewal.device_id for renewal in renewals]),
        salt=(sa.Text, [renewal.credentials.salt for renewal in renewals]),
        key_id=(sa.Integer, [renewal.credentials.key_id for renewal in renewals]),
        api_key_hash=(sa.LargeBinary, [renewal.credentials.api_key_hash for renewal in renewals]),
        password_hash=(sa.Text, [renewal.credentials.password_hash for renewal in renewals]),
    )
    rows = await connection.execute(
        sa.update(devices)
        .where(devices.c.id == given.c.id, devices.c.reprovisioning_allowed)
        .values(
            credential_salt=given.c.salt,
            credential_key_id=given.c.key_id,
            api_key_hash=given.c.api_key_hash,
            mqtt_password_hash=given.c.password_hash,
            reprovisioning_allowed=False,
            provisioned_at=sa.func.now(),
        )
        .returning(devices.c.id)
    )
    return frozenset(rows.scalars())


async def _tell(connection: AsyncConnection, tellings: Sequence[Telling]) -> None:
    given = _rows(
        "given",
        id=(sa.BigInteger, [telling.device_id for telling in tellings]),
        told=(sa.Text, [_array(telling.broker_ids) for telling in tellings]),
    )
    await connection.execute(
        sa.update(devices)
        .where(devices.c.id == given.c.id)
        .values(told_broker_ids=sa.cast(given.c.told, sa.ARRAY(sa.Integer)), told_at=sa.func.now())
    )


def _rows(name: str, **columns: tuple[Any, Sequence[Any]]) -> sa.TableValuedAlias:
    """Arrays as the columns of a table: one statement and one plan, however large the batch."""
    arrays = [
        sa.cast(sa.literal(list(values), sa.ARRAY(kind)), sa.ARRAY(kind))
        for kind, values in columns.values()
    ]
    table = sa.func.unnest(*arrays).table_valued(
        *(sa.column(column, kind) for column, (kind, _) in columns.items()), name=name
    )
    return table.render_derived()


def _array(broker_ids: Sequence[int]) -> str:
    """PostgreSQL's text form; arrays of arrays would be flattened by unnest."""
    return "{" + ",".join(map(str, broker_ids)) + "}"


def _key(row: Row) -> ProvisioningKey | None:
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


def _key_placement(row: Row, region: str) -> Placement | None:
    if row.key_id is None:
        return None
    return Placement(row.default_broker_id, row.key_fleet_id, region, row.key_fleet_has_rule)


def _device(row: Row) -> Device | None:
    if row.device_id is None:
        return None
    return Device(
        id=row.device_id,
        uuid=row.uuid,
        device_name=row.device_name,
        device_type=row.device_type,
        placement=Placement(
            row.mqtt_broker_id, row.device_fleet_id, row.region, row.device_fleet_has_rule
        ),
        api_key_hash=row.api_key_hash,
        credential_key_id=row.credential_key_id,
        credential_salt=row.credential_salt,
        provisioned_by_key_id=row.provisioned_by_key_id,
        is_active=row.device_is_active,
        reprovisioning_allowed=row.reprovisioning_allowed,
        told_broker_ids=row.told_broker_ids,
        created_at=row.created_at,
    )
