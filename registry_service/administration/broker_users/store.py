"""Counts what refers to a broker in the database, and moves it a chunk at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, take_turns, writing
from domain.turns import PLACEMENT
from registry_service.errors import (
    BrokerInactive,
    BrokerNotAllowed,
    BrokerNotFound,
    BrokerUnknown,
)
from registry_service.tables import (
    brokers,
    devices,
    expected_devices,
    fleet_brokers,
    fleets,
    provisioning_keys,
)

# How many rows one transaction locks, for some tens of milliseconds. Registrations of these devices
# wait that long.
CHUNK = 1_000
# Tables with many rows: the order in which rows are locked, and the column of the pin.
PINNED: dict[str, tuple[sa.Column[Any], sa.Column[int | None]]] = {
    "expected_devices": (expected_devices.c.uuid, expected_devices.c.mqtt_broker_id),
    "devices": (devices.c.id, devices.c.mqtt_broker_id),
}

# Tables with few rows.
RULES = ("keys", "fleets", "rollouts", "allowances")

Key = int | str


class BrokerUserStore:
    """A move is several transactions, each of which is safe to repeat. Each writes a line of the
    audit log: how many devices, and which keys, fleets and allowances were moved. Keys come before
    devices, so that no later registration makes a device with a pin to the old broker.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def usage(self, broker_id: int) -> dict[str, int]:
        """The counts, by the fields of `BrokerUsage`. Raises `BrokerNotFound`."""
        counts = sa.select(
            _count(devices, devices.c.mqtt_broker_id == broker_id).label("devices"),
            _count(fleets, fleets.c.mqtt_broker_id == broker_id).label("fleets"),
            _count(provisioning_keys, provisioning_keys.c.default_broker_id == broker_id).label(
                "keys"
            ),
            _count(fleet_brokers, fleet_brokers.c.broker_id == broker_id).label("allowances"),
            _count(expected_devices, expected_devices.c.mqtt_broker_id == broker_id).label(
                "expected_devices"
            ),
            _count(fleets, fleets.c.rollout_broker_id == broker_id).label("rollouts"),
            sa.exists(sa.select(brokers.c.id).where(brokers.c.id == broker_id)).label("is_there"),
        )
        async with reading(self._engine) as connection:
            found = dict((await connection.execute(counts)).mappings().one())
        if not found.pop("is_there"):
            raise BrokerNotFound("there is no such broker")
        return found

    async def move_rules(
        self, broker_id: int, to_id: int, *, with_allowances: bool
    ) -> dict[str, int]:
        """Moves everything except devices; returns the numbers.

        Raises `BrokerNotFound`, `BrokerUnknown`, `BrokerInactive`, `BrokerNotAllowed`.
        """
        moved: dict[str, Sequence[Key]] = dict.fromkeys(RULES, ())
        try:
            async with writing(self._engine) as connection:
                await take_turns(connection, PLACEMENT)
                await _require_target(connection, broker_id, to_id)
                if with_allowances:
                    moved["allowances"] = await _move_allowances(connection, broker_id, to_id)
                else:
                    await _require_allowed(connection, broker_id, to_id)
                moved["keys"] = await _pointed(
                    connection, provisioning_keys.c.default_broker_id, broker_id, to_id
                )
                moved["fleets"] = await _pointed(
                    connection, fleets.c.mqtt_broker_id, broker_id, to_id
                )
                moved["rollouts"] = await _pointed(
                    connection, fleets.c.rollout_broker_id, broker_id, to_id
                )
                await _record(connection, broker_id, to_id, moved)
        except IntegrityError:
            # Only one foreign key can be violated: the target was deleted meanwhile.
            raise _no_target() from None
        return {which: len(ids) for which, ids in moved.items()}

    async def move_pins(
        self, which: str, broker_id: int, to_id: int, after: Key | None
    ) -> tuple[int, Key | None]:
        """Moves the next chunk of one of `PINNED`, after the row `after`. Returns the number, and
        the last row if there may be more. Raises `BrokerNotFound`, `BrokerUnknown`,
        `BrokerInactive`.
        """
        key, pin = PINNED[which]
        # Rows are locked in the order that all changes of several rows use.
        chosen = sa.select(key).where(pin == broker_id).order_by(key).limit(CHUNK)
        if after is not None:
            chosen = chosen.where(key > after)
        locked = chosen.with_for_update(key_share=True).cte("chosen").prefix_with("MATERIALIZED")
        move = (
            sa.update(key.table)
            .where(key.in_(sa.select(locked.c[key.name])))
            .values({pin: to_id})
            .returning(key)
        )
        try:
            async with writing(self._engine) as connection:
                await _require_target(connection, broker_id, to_id)
                moved = (await connection.execute(move)).scalars().all()
                await _record(connection, broker_id, to_id, {which: len(moved)})
        except IntegrityError:
            raise _no_target() from None
        return len(moved), max(moved) if len(moved) == CHUNK else None


def _count(table: sa.Table, condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).where(condition).scalar_subquery()


def _no_target() -> BrokerUnknown:
    return BrokerUnknown("there is no such broker", field="to_broker_id")


async def _require_target(connection: AsyncConnection, broker_id: int, to_id: int) -> None:
    query = sa.select(brokers.c.id, brokers.c.is_active).where(brokers.c.id.in_([broker_id, to_id]))
    found = {row.id: row.is_active for row in await connection.execute(query)}
    if broker_id not in found:
        raise BrokerNotFound("there is no such broker")
    if to_id not in found:
        raise _no_target()
    if not found[to_id]:
        raise BrokerInactive(
            "activate the broker before moving devices to it", field="to_broker_id"
        )


async def _pointed(
    connection: AsyncConnection, column: sa.Column[int | None], broker_id: int, to_id: int
) -> Sequence[Key]:
    """Sets the column to `to_id`; returns the ids of the changed rows, in order."""
    table = column.table
    chosen = (
        sa.select(table.c.id)
        .where(column == broker_id)
        .order_by(table.c.id)
        .with_for_update(key_share=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED")
    )
    move = (
        sa.update(table)
        .where(table.c.id.in_(sa.select(chosen.c.id)))
        .values({column: to_id})
        .returning(table.c.id)
    )
    return sorted((await connection.execute(move)).scalars())


async def _move_allowances(
    connection: AsyncConnection, broker_id: int, to_id: int
) -> Sequence[Key]:
    """Fleets that may use `broker_id` may use `to_id` instead. Returns their ids, in order."""
    # The fleets' rows are locked and updated. So their revisions go up, and two transactions that
    # restrict one fleet run one after the other.
    allowing = sa.select(fleet_brokers.c.fleet_id).where(fleet_brokers.c.broker_id == broker_id)
    locked = (
        sa.select(fleets.c.id)
        .where(fleets.c.id.in_(allowing))
        .order_by(fleets.c.id)
        .with_for_update(key_share=True)
    )
    fleet_ids = (await connection.execute(locked)).scalars().all()
    if not fleet_ids:
        return ()
    touch = sa.update(fleets).where(fleets.c.id.in_(fleet_ids)).values(name=fleets.c.name)
    await connection.execute(touch)
    gone = sa.delete(fleet_brokers).where(
        fleet_brokers.c.broker_id == broker_id, fleet_brokers.c.fleet_id.in_(fleet_ids)
    )
    moved = (await connection.execute(gone.returning(fleet_brokers.c.fleet_id))).scalars().all()
    if moved:
        rows = [{"fleet_id": fleet_id, "broker_id": to_id} for fleet_id in moved]
        insert = postgresql.insert(fleet_brokers).on_conflict_do_nothing()
        await connection.execute(insert, rows)
    return sorted(moved)


async def _require_allowed(connection: AsyncConnection, broker_id: int, to_id: int) -> None:
    """Raises `BrokerNotAllowed` if a restricted fleet would lose the broker that it uses."""
    theirs = fleet_brokers.c.fleet_id == fleets.c.id
    uses = sa.or_(
        fleets.c.mqtt_broker_id == broker_id,
        fleets.c.rollout_broker_id == broker_id,
        sa.exists().where(
            provisioning_keys.c.fleet_id == fleets.c.id,
            provisioning_keys.c.default_broker_id == broker_id,
        ),
        sa.exists().where(
            expected_devices.c.fleet_id == fleets.c.id,
            expected_devices.c.mqtt_broker_id == broker_id,
        ),
        sa.exists().where(devices.c.fleet_id == fleets.c.id, devices.c.mqtt_broker_id == broker_id),
    )
    stranded = (
        sa.select(sa.func.count())
        .select_from(fleets)
        .where(
            fleets.c.is_restricted,
            sa.exists().where(theirs, fleet_brokers.c.broker_id == broker_id),
            ~sa.exists().where(theirs, fleet_brokers.c.broker_id == to_id),
            uses,
        )
    )
    count = await connection.scalar(stranded)
    if count:
        raise BrokerNotAllowed(
            f"restricted fleets ({count}) use this broker and may not use the new one:"
            " move their allowances too",
            field="move_allowances",
            usage={"fleets": count},
        )


async def _record(
    connection: AsyncConnection, broker_id: int, to_id: int, moved: Mapping[str, Any]
) -> None:
    """Writes the line of the audit log. `moved` maps names to numbers or lists of ids; a name with
    0 or an empty list is left out.
    """
    moved = {which: rows for which, rows in moved.items() if rows}
    if moved:
        await audit.record(
            connection,
            "broker.move_users",
            str(broker_id),
            after={"to_broker_id": to_id, **moved},
        )
