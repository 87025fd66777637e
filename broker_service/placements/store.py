"""Reads placements of devices, fleets and brokers from the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.certificates.expiry import Expiring
from broker_service.database import all_brokers
from broker_service.explanation import Facts
from broker_service.resolution import Broker, Directory, FleetRollout, FleetRule, Placement
from broker_service.tables import (
    brokers,
    certificates,
    devices,
    fleet_brokers,
    fleets,
    placement_changes,
    placement_version,
)
from chassis.database import Pool, fetched, reading, text_array
from chassis.isolation import Fleets, is_within
from chassis.listening import Listener

CHANNEL = "mooring_placement"
# The most changed rows that are read by themselves. For more, reading all rows is as fast.
MAX_TOUCHED = 1_000

_replaced = certificates.alias("replaced")
_expiring = sa.select(certificates.c.id, certificates.c.name, certificates.c.not_after).where(
    sa.or_(
        certificates.c.id.in_(sa.select(brokers.c.ca_certificate_id)),
        certificates.c.id.in_(sa.select(brokers.c.client_certificate_id)),
        certificates.c.id.in_(sa.select(_replaced.c.replacement_id)),
    )
)
_all_fleets = sa.select(
    fleets.c.id,
    fleets.c.mqtt_broker_id,
    fleets.c.is_restricted,
    fleets.c.revision,
    fleets.c.rollout_broker_id,
    fleets.c.rollout_percent,
    fleets.c.rollout_salt,
    sa.select(sa.func.array_agg(fleet_brokers.c.broker_id, type_=sa.ARRAY(sa.Integer)))
    .where(fleet_brokers.c.fleet_id == fleets.c.id)
    .scalar_subquery()
    .label("allowed_ids"),
)

# The row of a version in the log, and all later rows.
_line = (
    sa.select(placement_changes.c.id)
    .where(placement_changes.c.version == sa.bindparam("version"))
    .scalar_subquery()
)
_log = (
    sa.select(placement_changes)
    .where(placement_changes.c.id >= _line)
    .order_by(placement_changes.c.id)
)

_facts = sa.select(devices, fleets.c.revision).join_from(
    devices, fleets, devices.c.fleet_id == fleets.c.id
)

# The statement is text, as in registry_service/provisioning/statements.py. Devices have few
# different placements, and each row of a result costs time. So a row is one placement with all its
# uuids.
PLACEMENTS = """
SELECT placed.mqtt_broker_id, placed.fleet_id, fleet.revision, placed.wave, placed.uuids
FROM (
    SELECT device.mqtt_broker_id, device.fleet_id, wave, string_agg(device.uuid, ',') AS uuids
    FROM devices AS device
    LEFT JOIN fleets AS rolling
        ON rolling.id = device.fleet_id AND rolling.rollout_broker_id IS NOT NULL
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN rollout_position(rolling.rollout_salt, device.uuid) < rolling.rollout_percent * 100
            THEN rolling.rollout_salt ELSE ''
        END AS wave
    ) AS reached
    WHERE device.uuid = ANY (%s::text[])
    GROUP BY device.mqtt_broker_id, device.fleet_id, wave
) AS placed
JOIN fleets AS fleet ON fleet.id = placed.fleet_id
"""


@dataclass(frozen=True, slots=True)
class Touched:
    """The brokers, fleets and certificates that were created, changed or deleted. A changed
    certificate also changes its brokers.
    """

    broker_ids: frozenset[int]
    certificate_ids: frozenset[int]
    fleet_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """Brokers and fleets as of one moment; `rows` are the brokers with their PEM texts.

    It holds all brokers and fleets, or those that were `touched` since an older reading.
    """

    directory: Directory
    rows: Sequence[sa.RowMapping]
    version: str
    # The certificates in use; None in a partial reading.
    expiring: Sequence[Expiring] | None = None
    touched: Touched | None = None


class PlacementStore:
    """Reads only."""

    def __init__(self, engine: AsyncEngine, pool: Pool, listener: Listener) -> None:
        """All arguments connect as mooring_broker. If `listener` reconnects while a reading hangs,
        the reading is repeated.
        """
        self._engine = engine
        self._pool = pool
        self._listener = listener

    async def read(self, since: str = "") -> Reading:
        """The rows that were touched after the version `since`; all rows if the log does not go
        back that far. Raises `Unavailable`.
        """
        async with reading(self._engine) as connection:
            # All rows are read as of one moment, so the broker of each fleet is among them.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            version = (await connection.scalars(sa.select(placement_version.c.version))).one()
            touched = await _touched(connection, UUID(since), version) if since else None
            brokers_read, fleets_read, expiring = all_brokers, _all_fleets, None
            if touched is None:
                expiring = [Expiring(*row) for row in await connection.execute(_expiring)]
            else:
                brokers_read = brokers_read.where(_is_touched(touched))
                fleets_read = fleets_read.where(fleets.c.id.in_(touched.fleet_ids))
            rows = (await connection.execute(brokers_read)).mappings().all()
            fleet_rows = (await connection.execute(fleets_read)).all()
        return Reading(
            Directory(
                brokers={row["id"]: Broker(row["id"], row["is_active"]) for row in rows},
                fleets={row.id: _rule(row) for row in fleet_rows},
                default_id=next((row["id"] for row in rows if row["is_default"]), None),
            ),
            rows,
            str(version),
            expiring,
            touched,
        )

    async def placements_of(self, uuids: Sequence[str]) -> dict[str, Placement]:
        """The placements of the registered uuids; devices with equal facts share one object. Uuids
        are identifiers. Raises `Unavailable`.
        """
        rows = await self._listener.reading(
            lambda: fetched(self._pool, PLACEMENTS, [text_array(uuids)])
        )
        placements: dict[str, Placement] = {}
        for *facts, found in rows:
            placements.update(dict.fromkeys(found.split(","), Placement(*facts)))
        return placements

    async def facts_of(self, uuid: str, within: Fleets = None) -> Facts | None:
        """The facts of one device; None if no such device is registered in one of the fleets.
        Raises `Unavailable`.
        """
        query = _facts.where(devices.c.uuid == uuid, is_within(devices.c.fleet_id, within))
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        location = None if row.latitude is None else (row.latitude, row.longitude)
        placement = Placement(row.mqtt_broker_id, row.fleet_id, row.revision)
        return Facts(placement, row.region, location, uuid)


def _rule(row: sa.Row[*tuple[Any, ...]]) -> FleetRule:
    rollout = None
    if row.rollout_broker_id is not None:
        rollout = FleetRollout(row.rollout_broker_id, row.rollout_percent, row.rollout_salt)
    allowed_ids = frozenset(row.allowed_ids or ()) if row.is_restricted else None
    return FleetRule(row.mqtt_broker_id, allowed_ids, row.revision, rollout)


async def _touched(connection: AsyncConnection, since: UUID, version: UUID) -> Touched | None:
    """The rows that changed between the two versions; None if the log does not have them, or if
    everything changed.
    """
    lines = (await connection.execute(_log, {"version": since})).all()
    if not lines or lines[-1].version != version:
        return None
    ids: dict[str, set[str]] = {"broker": set(), "certificate": set(), "fleet": set()}
    for line in lines[1:]:
        if line.ids is None:
            return None
        ids[line.kind].update(line.ids)
    if sum(map(len, ids.values())) > MAX_TOUCHED:
        return None
    return Touched(
        frozenset(map(int, ids["broker"])),
        frozenset(map(int, ids["certificate"])),
        frozenset(ids["fleet"]),
    )


def _is_touched(touched: Touched) -> sa.ColumnElement[bool]:
    """The condition that a broker was touched."""
    return sa.or_(
        brokers.c.id.in_(touched.broker_ids),
        brokers.c.ca_certificate_id.in_(touched.certificate_ids),
        all_brokers.selected_columns.next_ca_id.in_(touched.certificate_ids),
        brokers.c.client_certificate_id.in_(touched.certificate_ids),
    )
