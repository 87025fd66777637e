"""Where devices, fleets and brokers stand, as the database has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from broker_service.certificates.expiry import Expiring
from broker_service.explanation import Facts
from broker_service.resolution import Broker, Directory, FleetRule, Placement, Rollout
from broker_service.tables import (
    brokers,
    certificates,
    devices,
    fleet_brokers,
    fleets,
    placement_version,
)
from chassis.database import Pool, fetched, reading, text_array
from chassis.isolation import Fleets, is_within
from chassis.listening import Listener

CHANNEL = "mooring_placement"

_ca = certificates.alias("ca")
_client = certificates.alias("client")
_next_ca = certificates.alias("next_ca")
_all_brokers = sa.select(
    brokers,
    _ca.c.pem.label("ca_cert"),
    _next_ca.c.id.label("next_ca_id"),
    _next_ca.c.pem.label("next_ca_cert"),
    _client.c.pem.label("client_cert"),
).select_from(
    brokers.outerjoin(_ca, brokers.c.ca_certificate_id == _ca.c.id)
    .outerjoin(_next_ca, _ca.c.replacement_id == _next_ca.c.id)
    .outerjoin(_client, brokers.c.client_certificate_id == _client.c.id)
)
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

_facts = sa.select(devices, fleets.c.revision).join_from(
    devices, fleets, devices.c.fleet_id == fleets.c.id
)

# Text, as it goes to the driver: see registry_service/registration/statements.py.
# Few placements serve all devices: a row is one of them with all its uuids, for rows cost time.
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
class Reading:
    """All brokers and fleets as of one moment; `rows` are the brokers with their PEM texts."""

    directory: Directory
    rows: Sequence[sa.RowMapping]
    # The certificates in use.
    expiring: Sequence[Expiring]
    version: str


class PlacementStore:
    """Reads only."""

    def __init__(self, engine: AsyncEngine, pool: Pool, listener: Listener) -> None:
        """All connect as mooring_broker; what hangs when `listener` reconnects is asked again."""
        self._engine = engine
        self._pool = pool
        self._listener = listener

    async def read(self) -> Reading:
        """Raises `Unavailable`."""
        async with reading(self._engine) as connection:
            # One moment for all: a fleet's broker is among the brokers, as of that version.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            rows = (await connection.execute(_all_brokers)).mappings().all()
            fleet_rows = (await connection.execute(_all_fleets)).all()
            expiring = (await connection.execute(_expiring)).all()
            version = await connection.scalar(sa.select(placement_version.c.version))
        return Reading(
            Directory(
                brokers={row["id"]: Broker(row["id"], row["is_active"]) for row in rows},
                fleets={row.id: _rule(row) for row in fleet_rows},
                default_id=next((row["id"] for row in rows if row["is_default"]), None),
            ),
            rows,
            [Expiring(*row) for row in expiring],
            str(version),
        )

    async def placements_of(self, uuids: Sequence[str]) -> dict[str, Placement]:
        """Those of the uuids that are registered; one object for all that are placed alike.

        Uuids are identifiers. Raises `Unavailable`.
        """
        rows = await self._listener.reading(
            lambda: fetched(self._pool, PLACEMENTS, [text_array(uuids)])
        )
        placements: dict[str, Placement] = {}
        for *facts, found in rows:
            placements.update(dict.fromkeys(found.split(","), Placement(*facts)))
        return placements

    async def facts_of(self, uuid: str, within: Fleets = None) -> Facts | None:
        """Those of one device; None if no such device is registered in one of the fleets.

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
        rollout = Rollout(row.rollout_broker_id, row.rollout_percent, row.rollout_salt)
    allowed_ids = frozenset(row.allowed_ids or ()) if row.is_restricted else None
    return FleetRule(row.mqtt_broker_id, allowed_ids, row.revision, rollout)
