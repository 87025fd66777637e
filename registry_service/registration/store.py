"""Devices and keys in the database, a batch in and a batch out."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import reading, writing
from chassis.errors import Unavailable
from registry_service.placements import Placement
from registry_service.registration import statements
from registry_service.registration.records import Device, Known, NewDevice, Renewal, Saved, Telling
from registry_service.registration.request import Registration
from registry_service.tables import devices, fleets, provisioning_keys

_key_fleet = fleets.alias("key_fleet")
_device_fleet = fleets.alias("device_fleet")


def _has_rule(fleet: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.or_(fleet.c.mqtt_broker_id.is_not(None), fleet.c.is_restricted)


_device_columns = (
    _device_fleet.c.revision.label("device_fleet_revision"),
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


class RegistrationStore:
    """Every method takes a batch. Raises `Unavailable` for a race or a lost connection."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def known_of(self, registrations: Sequence[Registration]) -> list[Known]:
        """One for each registration, in one round trip."""
        asked = statements.rows_of(
            "asked",
            n=(sa.Integer, range(len(registrations))),
            key_hash=(sa.LargeBinary, [item.key_hash for item in registrations]),
            uuid=(sa.Text, [item.uuid for item in registrations]),
        )
        query = (
            sa.select(
                *statements.KEY_COLUMNS,
                *_device_columns,
                _has_rule(_key_fleet).label("key_fleet_has_rule"),
                _key_fleet.c.revision.label("key_fleet_revision"),
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
            Known(
                statements.key_of_row(row), _device(row), _key_placement(row, registration.region)
            )
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
        ids = {item.device_id for item in renewals} | {item.device_id for item in tellings}
        if not (new or ids):
            return Saved(created, renewed)
        try:
            async with writing(self._engine) as connection:
                if new:
                    created = await statements.create(connection, new, now)
                if ids:
                    await statements.lock(connection, ids)
                if renewals:
                    renewed = await statements.renew(connection, renewals)
                if tellings:
                    await statements.tell(connection, tellings)
        except IntegrityError as error:
            if isinstance(error.orig, ForeignKeyViolation):
                # A pin was moved and its old broker deleted since it was read.
                raise Unavailable("what a device points at has changed") from error
            raise
        return Saved(created, renewed)

    async def tell(self, tellings: Sequence[Telling]) -> None:
        """Notes what devices are about to be told."""
        if tellings:
            async with writing(self._engine) as connection:
                await statements.lock(connection, {telling.device_id for telling in tellings})
                await statements.tell(connection, tellings)


def _key_placement(row: statements.Row, region: str) -> Placement | None:
    if row.key_id is None:
        return None
    return Placement(
        row.default_broker_id,
        row.key_fleet_id,
        region,
        row.key_fleet_has_rule,
        row.key_fleet_revision,
    )


def _device(row: statements.Row) -> Device | None:
    if row.device_id is None:
        return None
    return Device(
        id=row.device_id,
        uuid=row.uuid,
        device_name=row.device_name,
        device_type=row.device_type,
        placement=Placement(
            row.mqtt_broker_id,
            row.device_fleet_id,
            row.region,
            row.device_fleet_has_rule,
            row.device_fleet_revision,
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
