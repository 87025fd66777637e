"""Provisioning keys in the database."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, writing
from chassis.isolation import Fleets, is_within
from chassis.revisions import require_revision
from chassis.searching import Start, ordered
from registry_service.administration.allowance_store import require_allowed, require_pool
from registry_service.administration.one_place import require_one_place
from registry_service.errors import (
    BrokerUnknown,
    FleetUnknown,
    MaxDevicesBelowUse,
    PoolUnknown,
    ProvisioningKeyNotFound,
)
from registry_service.tables import devices, provisioning_keys

# How many devices of a fleet one transaction reads. Other changes of these devices wait for it.
WINDOW = 2_000

_listed = [
    *(column for column in provisioning_keys.c if column.name not in ("key_hash", "allowed_uuids")),
    sa.func.cardinality(provisioning_keys.c.allowed_uuids).label("allowed_uuid_count"),
]
_whole = [*_listed, provisioning_keys.c.allowed_uuids]

_passed = (
    sa.select(devices.c.id, devices.c.provisioned_by_key_id, devices.c.is_active)
    .where(devices.c.fleet_id == sa.bindparam("fleet"), devices.c.id > sa.bindparam("last"))
    .order_by(devices.c.id)
    .limit(WINDOW)
    .cte("passed")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)


class ProvisioningKeyStore:
    """Rows come from `provisioning_keys`, without the hash, with `allowed_uuid_count`. Keys of
    fleets that are not among `within` do not exist for callers.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(self, within: Fleets, **columns: Any) -> sa.Row[Any]:
        """The new row. Raises `InvalidInput` for a broker and a pool, `FleetUnknown`,
        `BrokerUnknown`, `BrokerNotAllowed`, `PoolUnknown`.
        """
        require_one_place(columns, {})
        fleet_id = columns["fleet_id"]
        if within is not None and fleet_id not in within:
            raise _no_fleet()
        insert = sa.insert(provisioning_keys).values(columns).returning(*_whole)
        shown = {
            name: value
            for name, value in columns.items()
            if name != "key_hash" and value not in (None, "", False)
        }
        try:
            async with writing(self._engine) as connection:
                await _require_allowed(connection, fleet_id, columns, within)
                row = (await connection.execute(insert)).one()
                await audit.record(
                    connection, "provisioning_key.create", str(row.id), after=_json(shown)
                )
                return row
        except IntegrityError as error:
            raise _fact(error) from None

    async def key(self, key_id: UUID, within: Fleets) -> sa.Row[Any]:
        """Raises `ProvisioningKeyNotFound`."""
        async with reading(self._engine) as connection:
            return await _found(connection, sa.select(*_whole), key_id, within)

    async def keys_from(
        self,
        start: Start[UUID],
        limit: int,
        within: Fleets,
        *,
        fleet_id: str | None = None,
        is_active: bool | None = None,
        used_percent: int | None = None,
    ) -> Sequence[sa.Row[Any]]:
        """The next `limit` keys, in the order of their ids, without `allowed_uuids`.
        An argument that is None excludes no key; with `used_percent`, only keys with a limit are
        found of which at least this share is used.
        """
        query = sa.select(*_listed).where(is_within(provisioning_keys.c.fleet_id, within))
        if fleet_id is not None:
            query = query.where(provisioning_keys.c.fleet_id == fleet_id)
        if is_active is not None:
            query = query.where(provisioning_keys.c.is_active == is_active)
        if used_percent is not None:
            used = sa.cast(provisioning_keys.c.devices_provisioned, sa.BigInteger) * 100
            limit_of = sa.cast(provisioning_keys.c.max_devices, sa.BigInteger)
            query = query.where(used >= limit_of * used_percent)
        texts = (provisioning_keys.c.description, provisioning_keys.c.fleet_id)
        query = ordered(query, start, provisioning_keys.c.id, texts=texts)
        async with reading(self._engine) as connection:
            rows: Sequence[sa.Row[Any]] = (await connection.execute(query.limit(limit))).all()
        return rows

    async def update(
        self,
        key_id: UUID,
        columns: Mapping[str, Any],
        within: Fleets,
        if_revision: Collection[int] = (),
    ) -> sa.Row[Any]:
        """Changes the named columns.

        Raises `InvalidInput` for a broker and a pool, `ProvisioningKeyNotFound`, `LostRace`,
        `BrokerUnknown`, `BrokerNotAllowed`, `PoolUnknown`, `MaxDevicesBelowUse`.
        """
        try:
            async with writing(self._engine) as connection:
                row = await _locked(connection, key_id, within, if_revision)
                before = {name: _plain(getattr(row, name)) for name in columns}
                changed = {name: value for name, value in columns.items() if value != before[name]}
                if not changed:
                    return row
                require_one_place(changed, row._asdict())
                await _require_allowed(connection, row.fleet_id, changed, within)
                update = sa.update(provisioning_keys).values(changed).returning(*_whole)
                after = await _found(connection, update, key_id, within)
                await audit.record(
                    connection,
                    "provisioning_key.update",
                    str(key_id),
                    before=_json({name: before[name] for name in changed}),
                    after=_json(changed),
                )
                return after
        except IntegrityError as error:
            raise _fact(error) from None

    async def revoke(self, key_id: UUID, within: Fleets, if_revision: Collection[int] = ()) -> str:
        """Revokes the key, and returns its fleet. Raises `ProvisioningKeyNotFound`, `LostRace`."""
        update = (
            sa.update(provisioning_keys)
            .where(provisioning_keys.c.id == key_id)
            .values(is_active=False)
        )
        async with writing(self._engine) as connection:
            row = await _locked(connection, key_id, within, if_revision)
            if row.is_active:
                await connection.execute(update)
                await audit.record(
                    connection,
                    "provisioning_key.revoke",
                    str(key_id),
                    before={"is_active": True},
                    after={"is_active": False},
                )
            return str(row.fleet_id)

    async def deactivate_devices_after(
        self, device_id: int, key_id: UUID, fleet_id: str
    ) -> tuple[int, int | None]:
        """Reads the fleet's next `WINDOW` devices after `device_id`, and deactivates those that
        registered with the key. Returns how many it has deactivated, and the id of the last device
        that it has read, or None if there was none.

        It reads all devices of the fleet, because an index by key would slow down registrations.
        """
        theirs = sa.select(_passed.c.id).where(
            _passed.c.provisioned_by_key_id == key_id, _passed.c.is_active
        )
        locked = (
            sa.select(devices.c.id)
            .where(devices.c.id.in_(theirs), devices.c.provisioned_by_key_id == key_id)
            .order_by(devices.c.id)
            .with_for_update(key_share=True)
            .cte("locked")
        )
        changed = (
            sa.update(devices)
            .values(is_active=False)
            .where(devices.c.id == locked.c.id)
            .returning(devices.c.uuid)
            .cte("changed")
        )
        query = sa.select(
            sa.select(sa.func.max(_passed.c.id)).scalar_subquery().label("last"),
            sa.select(sa.func.count()).select_from(changed).scalar_subquery().label("done"),
            sa.select(sa.func.array_agg(changed.c.uuid)).scalar_subquery().label("uuids"),
        )
        async with writing(self._engine) as connection:
            passed = (await connection.execute(query, {"fleet": fleet_id, "last": device_id})).one()
            if passed.done:
                await audit.record(
                    connection,
                    "provisioning_key.deactivate_devices",
                    str(key_id),
                    after={"uuids": sorted(passed.uuids)},
                )
        return passed.done, passed.last


async def _found(
    connection: AsyncConnection, statement: Any, key_id: UUID, within: Fleets
) -> sa.Row[Any]:
    theirs = is_within(provisioning_keys.c.fleet_id, within)
    found = await connection.execute(statement.where(provisioning_keys.c.id == key_id, theirs))
    row = found.one_or_none()
    if row is None:
        raise ProvisioningKeyNotFound("there is no such provisioning key")
    return row


async def _locked(
    connection: AsyncConnection, key_id: UUID, within: Fleets, if_revision: Collection[int]
) -> sa.Row[Any]:
    """The whole key, locked until the commit."""
    locked = sa.select(*_whole).with_for_update(key_share=True)
    row = await _found(connection, locked, key_id, within)
    require_revision("key", row.revision, if_revision)
    return row


async def _require_allowed(
    connection: AsyncConnection, fleet_id: str, columns: Mapping[str, Any], within: Fleets
) -> None:
    broker_id = columns.get("default_broker_id")
    await require_allowed(connection, fleet_id, broker_id, within, field="default_broker_id")
    pool_id = columns.get("default_pool_id")
    await require_pool(connection, pool_id, within, field="default_pool_id")


def _no_fleet() -> FleetUnknown:
    return FleetUnknown("there is no such fleet", field="fleet_id")


def _plain(value: Any) -> Any:
    """A column's value as operators write it. The driver returns networks as objects."""
    return [str(item) for item in value] if isinstance(value, list) else value


def _json(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as the audit log shows them."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in columns.items()
    }


def _fact(error: IntegrityError) -> Exception:
    """The error for a violated constraint."""
    diagnosis = getattr(error.orig, "diag", None)
    match diagnosis and diagnosis.constraint_name:
        case "provisioning_keys_fleet_id_fkey":
            return _no_fleet()
        case "provisioning_keys_default_broker_id_fkey":
            return BrokerUnknown("there is no such broker", field="default_broker_id")
        case "provisioning_keys_default_pool_id_fkey":
            return PoolUnknown("there is no such pool", field="default_pool_id")
        case "limit_is_kept":
            return MaxDevicesBelowUse(
                "more devices have registered with the key than that", field="max_devices"
            )
    return error
