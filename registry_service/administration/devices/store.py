"""Devices in the database, for administrators; registering them is elsewhere."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, writing
from chassis.isolation import Fleets, is_within
from chassis.revisions import require_revision
from registry_service.administration.allowance_store import require_allowed, require_pool
from registry_service.administration.devices import revision
from registry_service.errors import BrokerUnknown, DeviceNotFound, PoolUnknown
from registry_service.password_hashes import NONE
from registry_service.tables import devices

# The columns of the previous password.
PREVIOUS = ("previous_password_hash", "previous_salt", "previous_until", "previous_broker_ids")
SECRET = (
    *("mqtt_password_hash", "credential_salt", "credential_key_id", "api_key_hash"),
    *("previous_password_hash", "previous_salt", "previous_broker_ids", "salt_broker_ids"),
    *("proved_from", "rotations", "rotations_since", "rotated_at"),
)
_columns = [column for column in devices.c if column.name not in SECRET]
# The columns that callers see.
SHOWN = tuple(column.name for column in _columns)


class DeviceStore:
    """Rows come from `devices`, without credentials. Devices outside of the fleets `within` do
    not exist for callers.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def device(self, uuid: str, within: Fleets) -> sa.Row[Any]:
        """Raises `DeviceNotFound`."""
        query = sa.select(*_columns).where(_is(uuid, within))
        async with reading(self._engine) as connection:
            return _found((await connection.execute(query)).one_or_none())

    async def update(
        self,
        uuid: str,
        columns: Mapping[str, Any],
        within: Fleets,
        if_revision: Collection[int] = (),
    ) -> sa.Row[Any]:
        """Changes the named columns. A column that has its value already is not checked again.

        Raises `DeviceNotFound`, `BrokerUnknown`, `BrokerNotAllowed`, `PoolUnknown`; `LostRace`
        unless `if_revision` is empty or holds the device's revision.
        """
        try:
            async with writing(self._engine) as connection:
                before = (await _locked(connection, uuid, within, if_revision))._asdict()
                changed = {name: value for name, value in columns.items() if value != before[name]}
                if not changed:
                    unchanged = sa.select(*_columns).where(devices.c.uuid == uuid)
                    return (await connection.execute(unchanged)).one()
                pin = changed.get("mqtt_broker_id")
                fleet_id = before["fleet_id"]
                await require_allowed(connection, fleet_id, pin, within, field="mqtt_broker_id")
                await require_pool(connection, changed.get("pool_id"), within, field="pool_id")
                update = sa.update(devices).where(devices.c.uuid == uuid).values(changed)
                after = (await connection.execute(update.returning(*_columns))).one()
                before = {name: before[name] for name in changed}
                await audit.record(connection, "device.update", uuid, before=before, after=changed)
                return after
        except IntegrityError as error:
            if isinstance(error.orig, ForeignKeyViolation):
                if error.orig.diag.constraint_name == "devices_pool_id_fkey":
                    raise PoolUnknown("there is no such pool", field="pool_id") from None
                raise BrokerUnknown("there is no such broker", field="mqtt_broker_id") from None
            raise

    async def end_password(self, uuid: str, within: Fleets) -> None:
        """Ends the device's passwords. Raises `DeviceNotFound`."""
        end = (
            sa.update(devices)
            .where(_is(uuid, within))
            .values(password_ended())
            .returning(devices.c.id)
        )
        async with writing(self._engine) as connection:
            _found((await connection.execute(end)).one_or_none())
            await audit.record(connection, "device.revoke_credentials", uuid)

    async def delete(self, uuid: str, within: Fleets, if_revision: Collection[int] = ()) -> None:
        """Raises `DeviceNotFound`, and `LostRace` as `update` does."""
        delete = sa.delete(devices).where(_is(uuid, within)).returning(*_columns)
        async with writing(self._engine) as connection:
            if if_revision:
                await _locked(connection, uuid, within, if_revision)
            row = _found((await connection.execute(delete)).one_or_none())
            await audit.record(connection, "device.delete", uuid, before=row._asdict())


def password_ended() -> dict[str, Any]:
    """The columns that end a device's passwords: brokers accept neither the present nor the
    previous one. The salt is deleted, so the device gets another password when it authenticates.
    """
    return {
        "mqtt_password_hash": "",
        "credential_salt": "",
        "password_algorithm": NONE,
        **dict.fromkeys(PREVIOUS),
    }


async def _locked(
    connection: AsyncConnection, uuid: str, within: Fleets, if_revision: Collection[int]
) -> sa.Row[Any]:
    """The fleet of the device, and the columns that can be changed."""
    query = (
        sa.select(devices.c.fleet_id, *revision.columns)
        .where(_is(uuid, within))
        .with_for_update(key_share=True)
    )
    row = _found((await connection.execute(query)).one_or_none())
    require_revision("device", revision.revision_of(row), if_revision)
    return row


def _is(uuid: str, within: Fleets) -> sa.ColumnElement[bool]:
    return sa.and_(devices.c.uuid == uuid, is_within(devices.c.fleet_id, within))


def _found(row: sa.Row[Any] | None) -> sa.Row[Any]:
    if row is None:
        raise DeviceNotFound("there is no such device")
    return row
