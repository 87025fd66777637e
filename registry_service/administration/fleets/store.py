"""Fleets in the database."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, take_turns, writing
from chassis.errors import Forbidden
from chassis.isolation import Fleets, is_within
from chassis.revisions import require_revision
from chassis.searching import Start, ordered
from domain.turns import PLACEMENT
from registry_service.administration.allowance_store import require_allowed, require_pool
from registry_service.administration.one_place import require_one_place
from registry_service.errors import (
    BrokerUnknown,
    FleetIdTaken,
    FleetNotFound,
    PoolUnknown,
    UuidPrefixTaken,
)
from registry_service.tables import devices, fleet_brokers, fleets

MAX_OUTSIDE = 10_000

_whole = sa.select(
    fleets,
    sa.select(
        sa.func.coalesce(
            sa.func.array_agg(sa.distinct(fleet_brokers.c.broker_id)),
            sa.cast(sa.literal("{}"), sa.ARRAY(sa.Integer)),
            type_=sa.ARRAY(sa.Integer),
        )
    )
    .where(fleet_brokers.c.fleet_id == fleets.c.id)
    .scalar_subquery()
    .label("allowed_ids"),
)

# The columns that restrict tokens, with their names in requests: restricted tokens cannot change
# them.
KEPT_FROM_RESTRICTED = {
    "allowed_ids": "allowed_broker_ids",
    "is_active": "is_active",
    "uuid_prefix": "uuid_prefix",
}


class FleetStore:
    """Rows come from `fleets`, with `allowed_ids`: the brokers that a restricted fleet may use.
    Fleets that are not among `within` do not exist for callers.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(
        self, columns: Mapping[str, Any], allowed_ids: Iterable[int] | None
    ) -> sa.Row[Any]:
        """The new fleet. It is restricted to `allowed_ids`, unless they are None.

        Raises `InvalidInput` for a broker and a pool, `FleetIdTaken`, `UuidPrefixTaken`,
        `BrokerUnknown`, `BrokerNotAllowed`, `PoolUnknown`.
        """
        require_one_place(columns, {})
        row = {**columns, "is_restricted": allowed_ids is not None}
        try:
            async with writing(self._engine) as connection:
                await take_turns(connection, PLACEMENT)
                await _require_free(connection, columns["id"], columns.get("uuid_prefix"))
                await connection.execute(sa.insert(fleets).values(row))
                await _allow(connection, columns["id"], allowed_ids)
                fleet = await fleet_of(connection, columns["id"])
                await require_allowed(
                    connection, fleet.id, fleet.mqtt_broker_id, None, field="mqtt_broker_id"
                )
                await audit.record(connection, "fleet.create", fleet.id, after=audit_fields(fleet))
                return fleet
        except IntegrityError as error:
            raise _named(error) from None

    async def fleet(self, fleet_id: str, within: Fleets) -> sa.Row[Any]:
        """Raises `FleetNotFound`."""
        async with reading(self._engine) as connection:
            return await fleet_of(connection, fleet_id, within)

    async def outside_prefix(self, fleet_id: str) -> int:
        """How many of its devices have uuids without its prefix, up to `MAX_OUTSIDE`."""
        outside = (
            sa.select(devices.c.id)
            .join(fleets, fleets.c.id == devices.c.fleet_id)
            .where(
                devices.c.fleet_id == fleet_id,
                ~sa.func.starts_with(devices.c.uuid, fleets.c.uuid_prefix),
            )
            .limit(MAX_OUTSIDE)
            .subquery()
        )
        async with reading(self._engine) as connection:
            count = await connection.scalar(sa.select(sa.func.count()).select_from(outside))
        return int(count or 0)

    async def fleets_from(
        self, start: Start[str], limit: int, within: Fleets, *, has_rollout: bool | None = None
    ) -> Sequence[sa.Row[Any]]:
        """The next `limit` fleets, in the order of their ids."""
        query = _whole.where(is_within(fleets.c.id, within))
        if has_rollout is not None:
            is_rolling = fleets.c.rollout_broker_id.is_not(None)
            query = query.where(is_rolling if has_rollout else ~is_rolling)
        query = ordered(query, start, fleets.c.id, texts=(fleets.c.id, fleets.c.name))
        async with reading(self._engine) as connection:
            rows: Sequence[sa.Row[Any]] = (await connection.execute(query.limit(limit))).all()
        return rows

    async def update(
        self,
        fleet_id: str,
        columns: Mapping[str, Any],
        within: Fleets,
        if_revision: Collection[int] = (),
    ) -> sa.Row[Any]:
        """Changes the named columns, and the allowed brokers if `allowed_ids` is named. A column
        that has its value already is not checked again.

        Raises `InvalidInput` for a broker and a pool, `FleetNotFound`, `LostRace`,
        `UuidPrefixTaken`, `BrokerUnknown`, `PoolUnknown`; `BrokerNotAllowed` if the fleet's broker
        would not be among the allowed ones; `Forbidden` if an actor restricted to fleets would
        change one of `KEPT_FROM_RESTRICTED`.
        """
        try:
            async with writing(self._engine) as connection:
                await take_turns(connection, PLACEMENT)
                before = await fleet_of(connection, fleet_id, within, is_locked=True)
                values = _changed(before, columns)
                if within is not None:
                    _require_own(values)
                require_one_place(values, before._asdict())
                require_revision("fleet", before.revision, if_revision)
                if not values:
                    return before
                is_restricting = "allowed_ids" in values
                allowed_ids = values.pop("allowed_ids", None)
                if is_restricting:
                    values["is_restricted"] = allowed_ids is not None
                await require_pool(connection, values.get("pool_id"), within, field="pool_id")
                await _require_free(connection, fleet_id, values.get("uuid_prefix"))
                if values:
                    await connection.execute(
                        sa.update(fleets).where(fleets.c.id == fleet_id).values(values)
                    )
                if is_restricting:
                    await connection.execute(
                        sa.delete(fleet_brokers).where(fleet_brokers.c.fleet_id == fleet_id)
                    )
                    await _allow(connection, fleet_id, allowed_ids)
                after = await fleet_of(connection, fleet_id)
                if is_restricting or "mqtt_broker_id" in values:
                    field = "mqtt_broker_id" if "mqtt_broker_id" in values else "allowed_broker_ids"
                    for broker_id in (after.mqtt_broker_id, after.rollout_broker_id):
                        await require_allowed(connection, fleet_id, broker_id, within, field=field)
                await audit.record(
                    connection,
                    "fleet.update",
                    fleet_id,
                    before=audit_fields(before),
                    after=audit_fields(after),
                )
                return after
        except IntegrityError as error:
            raise _named(error) from None


def _changed(fleet: sa.Row[Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns whose values differ from the fleet's."""
    before = fleet._asdict()
    before["allowed_ids"] = set(fleet.allowed_ids or ()) if fleet.is_restricted else None
    after = dict(columns)
    if after.get("allowed_ids") is not None:
        after["allowed_ids"] = set(after["allowed_ids"])
    return {name: columns[name] for name, value in after.items() if value != before[name]}


def _require_own(changed: Collection[str]) -> None:
    """Raises `Forbidden` for a change that restricted actors may not make."""
    kept = next((name for name in KEPT_FROM_RESTRICTED if name in changed), None)
    if kept is not None:
        raise Forbidden(
            "a token that is restricted to fleets cannot change which brokers and uuids are"
            " theirs, nor disable them",
            field=KEPT_FROM_RESTRICTED[kept],
        )


def audit_fields(fleet: sa.Row[Any]) -> dict[str, Any]:
    """The fields of a fleet for the audit log, with the names of the API."""
    return {
        "name": fleet.name,
        "mqtt_broker_id": fleet.mqtt_broker_id,
        "pool_id": fleet.pool_id,
        "allowed_broker_ids": fleet.allowed_ids if fleet.is_restricted else None,
        "is_active": fleet.is_active,
        "uuid_prefix": fleet.uuid_prefix,
    }


async def fleet_of(
    connection: AsyncConnection, fleet_id: str, within: Fleets = None, *, is_locked: bool = False
) -> sa.Row[Any]:
    """The whole fleet. Raises `FleetNotFound`.

    With `is_locked`, its row is locked until the commit. Callers that change fleets also lock the
    row PLACEMENT (`take_turns`), but an operator's own SQL does not.
    """
    if "\0" in fleet_id:
        raise FleetNotFound("there is no such fleet")
    if is_locked:
        lock = sa.select(fleets.c.id).where(fleets.c.id == fleet_id)
        await connection.execute(lock.with_for_update(key_share=True))
    query = _whole.where(fleets.c.id == fleet_id, is_within(fleets.c.id, within))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise FleetNotFound("there is no such fleet")
    return row


async def _require_free(
    connection: AsyncConnection, fleet_id: str, uuid_prefix: str | None
) -> None:
    """Raises `UuidPrefixTaken` if the prefix overlaps with another fleet's.

    Transactions that change fleets run one after the other, so the answer is valid to the commit.
    """
    if uuid_prefix is None:
        return
    other = fleets.c.uuid_prefix
    overlaps = sa.exists().where(
        fleets.c.id != fleet_id,
        other.is_not(None),
        sa.func.starts_with(other, uuid_prefix) | sa.func.starts_with(uuid_prefix, other),
    )
    if await connection.scalar(sa.select(overlaps)):
        raise UuidPrefixTaken(
            "the prefix overlaps with the prefix of another fleet", field="uuid_prefix"
        )


async def _allow(
    connection: AsyncConnection, fleet_id: str, broker_ids: Iterable[int] | None
) -> None:
    rows = [{"fleet_id": fleet_id, "broker_id": broker_id} for broker_id in set(broker_ids or ())]
    if rows:
        await connection.execute(sa.insert(fleet_brokers), rows)


def _named(error: IntegrityError) -> Exception:
    """The error for a violated constraint."""
    if isinstance(error.orig, UniqueViolation):
        return FleetIdTaken("another fleet has this id", field="id")
    if isinstance(error.orig, ForeignKeyViolation):
        if error.orig.diag.constraint_name == "fleets_pool_id_fkey":
            return PoolUnknown("there is no such pool", field="pool_id")
        is_allowance = error.orig.diag.table_name == "fleet_brokers"
        field = "allowed_broker_ids" if is_allowance else "mqtt_broker_id"
        return BrokerUnknown("there is no such broker", field=field)
    return error
