"""Reads placements of devices, fleets and brokers from the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.certificates.expiry import Expiring
from broker_service.database import all_brokers
from broker_service.explanation import Facts
from broker_service.placements.pool_store import (
    healths_of,
    location_of,
    pools_of,
    regions_of,
)
from broker_service.resolution import (
    Broker,
    Directory,
    FleetRollout,
    FleetRule,
    Placement,
)
from broker_service.tables import (
    broker_states,
    brokers,
    certificates,
    devices,
    fleet_brokers,
    fleets,
    placement_changes,
    placement_version,
    pool_members,
    pools,
    regions,
)
from chassis.database import Pool, fetched, reading, text_array
from chassis.isolation import Fleets, is_within
from chassis.listening import Listener
from domain.pools import Location
from domain.pools import Pool as BrokerPool

CHANNEL = "mooring_placement"
# The most changed rows that are read by themselves. For more, reading all rows is as fast.
MAX_TOUCHED = 1_000
# The kinds of changes in the log.
KINDS = ("broker", "certificate", "fleet", "pool", "region", "state")

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
    fleets.c.pool_id,
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

_facts = sa.select(devices, fleets.c.revision, regions.c.id.label("known")).select_from(
    devices.join(fleets, devices.c.fleet_id == fleets.c.id).outerjoin(
        regions, devices.c.region == regions.c.id
    )
)

# The statement is text, as in registry_service/provisioning/statements.py. Devices have few
# different placements, and each row of a result costs time. So a row is one placement and home with
# all its uuids. A location follows its uuid, if locations are asked for.
PLACEMENTS = """
SELECT placed.mqtt_broker_id, placed.fleet_id, fleet.revision, placed.wave, placed.pool_id,
       placed.region, placed.home_broker_id, placed.uuids
FROM (
    SELECT device.mqtt_broker_id, device.fleet_id, wave, device.pool_id,
           coalesce(region.id, '') AS region, device.home_broker_id,
           string_agg(
               CASE WHEN %s THEN concat_ws(':', device.uuid, device.latitude, device.longitude)
                    ELSE device.uuid END, ','
           ) AS uuids
    FROM devices AS device
    LEFT JOIN regions AS region ON region.id = device.region
    LEFT JOIN fleets AS rolling
        ON rolling.id = device.fleet_id AND rolling.rollout_broker_id IS NOT NULL
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN rollout_position(rolling.rollout_salt, device.uuid) < rolling.rollout_percent * 100
            THEN rolling.rollout_salt ELSE ''
        END AS wave
    ) AS reached
    WHERE device.uuid = ANY (%s::text[])
    GROUP BY device.mqtt_broker_id, device.fleet_id, wave, device.pool_id, region.id,
             device.home_broker_id
) AS placed
JOIN fleets AS fleet ON fleet.id = placed.fleet_id
"""


class Placed(NamedTuple):
    """What is known about a device that is registered. `location` is in degrees."""

    placement: Placement
    home_id: int | None = None
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Touched:
    """The objects that were created, changed or deleted. A changed certificate also changes its
    brokers. A changed region or broker may change the locations in pools.
    """

    broker_ids: frozenset[int]
    certificate_ids: frozenset[int]
    fleet_ids: frozenset[str]
    pool_ids: frozenset[int]
    region_ids: frozenset[str]
    state_ids: frozenset[int]


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

    async def read(self, since: str = "", known: Mapping[int, BrokerPool] | None = None) -> Reading:
        """The rows that were touched after the version `since`; all rows if the log does not go
        back that far. Pools that are as in `known` stay the same objects. Raises `Unavailable`.
        """
        async with reading(self._engine) as connection:
            # All rows are read as of one moment, so the broker of each fleet is among them.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            version = (await connection.scalars(sa.select(placement_version.c.version))).one()
            touched = await _touched(connection, UUID(since), version) if since else None
            brokers_read, fleets_read, expiring = all_brokers, _all_fleets, None
            changed_pools = changed_regions = changed_states = None
            if touched is None:
                expiring = [Expiring(*row) for row in await connection.execute(_expiring)]
            else:
                brokers_read = brokers_read.where(_is_touched(touched))
                fleets_read = fleets_read.where(fleets.c.id.in_(touched.fleet_ids))
                changed_pools = _has_touched(touched)
                changed_regions = regions.c.id.in_(touched.region_ids)
                changed_states = broker_states.c.broker_id.in_(touched.state_ids)
            rows = (await connection.execute(brokers_read)).mappings().all()
            fleet_rows = (await connection.execute(fleets_read)).all()
            pools_read, default_pool_id = await pools_of(connection, changed_pools, known or {})
            regions_read = await regions_of(connection, changed_regions)
            healths_read = await healths_of(connection, changed_states)
        return Reading(
            Directory(
                brokers={
                    row["id"]: Broker(row["id"], row["is_active"], row["backup_broker_id"])
                    for row in rows
                },
                fleets={row.id: _rule(row) for row in fleet_rows},
                default_id=next((row["id"] for row in rows if row["is_default"]), None),
                pools=pools_read,
                regions=regions_read,
                healths=healths_read,
                default_pool_id=default_pool_id,
            ),
            rows,
            str(version),
            expiring,
            touched,
        )

    async def placements_of(
        self, uuids: Sequence[str], *, with_locations: bool = False
    ) -> dict[str, Placed]:
        """The placements of the registered uuids. Devices with equal facts and homes share one
        object, unless their locations are asked for. Uuids are identifiers. Raises `Unavailable`.
        """
        values = [with_locations, text_array(uuids)]
        rows = await self._listener.reading(lambda: fetched(self._pool, PLACEMENTS, values))
        placements: dict[Placement, Placement] = {}
        placed: dict[str, Placed] = {}
        for *facts, home_id, found in rows:
            placement = Placement(*facts)
            placement = placements.setdefault(placement, placement)
            shared = Placed(placement, home_id)
            for text in found.split(","):
                uuid, *degrees = text.split(":")
                placed[uuid] = (
                    shared._replace(location=(float(degrees[0]), float(degrees[1])))
                    if degrees
                    else shared
                )
        return placed

    async def facts_of(self, uuid: str, within: Fleets = None) -> Facts | None:
        """The facts of one device; None if no such device is registered in one of the fleets.
        Raises `Unavailable`.
        """
        query = _facts.where(devices.c.uuid == uuid, is_within(devices.c.fleet_id, within))
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        placement = Placement(
            row.mqtt_broker_id, row.fleet_id, row.revision, "", row.pool_id, row.known or ""
        )
        return Facts(placement, row.region, location_of(row), uuid, row.home_broker_id)


def _rule(row: sa.Row[*tuple[Any, ...]]) -> FleetRule:
    rollout = None
    if row.rollout_broker_id is not None:
        rollout = FleetRollout(row.rollout_broker_id, row.rollout_percent, row.rollout_salt)
    allowed_ids = frozenset(row.allowed_ids or ()) if row.is_restricted else None
    return FleetRule(row.mqtt_broker_id, allowed_ids, row.revision, rollout, row.pool_id)


async def _touched(connection: AsyncConnection, since: UUID, version: UUID) -> Touched | None:
    """The rows that changed between the two versions; None if the log does not have them, or if
    everything changed.
    """
    lines = (await connection.execute(_log, {"version": since})).all()
    if not lines or lines[-1].version != version:
        return None
    ids: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for line in lines[1:]:
        if line.ids is None:
            return None
        ids.setdefault(line.kind, set()).update(line.ids)
    if sum(map(len, ids.values())) > MAX_TOUCHED:
        return None
    return Touched(
        frozenset(map(int, ids["broker"])),
        frozenset(map(int, ids["certificate"])),
        frozenset(ids["fleet"]),
        frozenset(map(int, ids["pool"])),
        frozenset(ids["region"]),
        frozenset(map(int, ids["state"])),
    )


def _is_touched(touched: Touched) -> sa.ColumnElement[bool]:
    """The condition that a broker was touched."""
    return sa.or_(
        brokers.c.id.in_(touched.broker_ids),
        brokers.c.ca_certificate_id.in_(touched.certificate_ids),
        all_brokers.selected_columns.next_ca_id.in_(touched.certificate_ids),
        brokers.c.client_certificate_id.in_(touched.certificate_ids),
    )


def _has_touched(touched: Touched) -> sa.ColumnElement[bool]:
    """The condition that a pool was touched, or that a location of a member may have changed."""
    is_member = pool_members.c.broker_id.in_(touched.broker_ids)
    return sa.or_(
        pools.c.id.in_(touched.pool_ids),
        pools.c.id.in_(sa.select(pool_members.c.pool_id).where(is_member)),
        sa.literal(bool(touched.region_ids)),
    )
