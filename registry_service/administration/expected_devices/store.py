"""Expected devices in the database."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import reading, writing
from chassis.errors import Forbidden, LostRace, MooringError
from chassis.isolation import Fleets, is_within, page_within
from registry_service.administration.allowance_store import VERDICT, facts
from registry_service.administration.quota_store import places_left, take_places
from registry_service.attributes import EXPECTED, listed, typed
from registry_service.errors import (
    DeviceExpected,
    DeviceRegistered,
    ExpectedDeviceNotFound,
    FleetUnknown,
    TokenUsedUp,
    UuidNotAllowed,
    UuidReserved,
)
from registry_service.tables import expected_devices

# How many devices one transaction adds. Registrations wait for the transaction.
CHUNK = 1_000
# Follows the characters of identifiers.
AFTER_ALL = "~"

_columns = [column for column in expected_devices.c if column.name != "id"]

# The statement that registers devices writes to this table, so it locks the table before it reads
# any row, until its end. The lock below waits for running registrations, and later ones wait for
# it. So the devices that this transaction reads stay as they are until it commits, and every later
# registration reads what it has written.
LOCK_TABLE = sa.text("LOCK TABLE expected_devices IN SHARE ROW EXCLUSIVE MODE")

# Inserts the devices that nothing forbids. Returns all of them, with the time and, for a device
# that is not inserted, the reason. An actor that is restricted to fleets does not learn whether a
# uuid of another fleet is a device or an expected device.
CREATE = sa.text(f"""
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(:rows) AS given (
        index integer, uuid text, fleet_id text, mqtt_broker_id integer, {typed(EXPECTED)}
    )
), judged AS MATERIALIZED (
    SELECT given.*, CASE
        WHEN fleet.id IS NULL THEN 'FLEET_UNKNOWN'
        WHEN NOT starts_with(given.uuid, fleet.uuid_prefix) THEN 'UUID_NOT_ALLOWED'
        WHEN reserved_for(given.uuid) <> given.fleet_id THEN 'UUID_RESERVED'
        WHEN given.mqtt_broker_id IS NOT NULL AND allowed.verdict IS NOT NULL THEN allowed.verdict
        WHEN coalesce(device.fleet_id, known.fleet_id) <> ALL (CAST(:within AS text[]))
            THEN 'FORBIDDEN'
        WHEN device.uuid IS NOT NULL THEN 'DEVICE_REGISTERED'
        WHEN known.uuid IS NOT NULL
            OR row_number() OVER (PARTITION BY given.uuid ORDER BY index) > 1
            THEN 'DEVICE_EXPECTED'
    END AS refusal
    FROM given
    LEFT JOIN fleets AS fleet ON fleet.id = given.fleet_id
        AND (CAST(:within AS text[]) IS NULL OR fleet.id = ANY (CAST(:within AS text[])))
    LEFT JOIN mqtt_broker_config AS broker ON broker.id = given.mqtt_broker_id
    LEFT JOIN devices AS device ON device.uuid = given.uuid
    LEFT JOIN expected_devices AS known ON known.uuid = given.uuid
    CROSS JOIN LATERAL (SELECT {VERDICT} AS verdict) AS allowed
), decided AS MATERIALIZED (
    SELECT *, CASE
        WHEN refusal IS NULL AND row_number() OVER (
            PARTITION BY refusal IS NULL ORDER BY index
        ) > CAST(:places AS integer) THEN 'TOKEN_USED_UP' ELSE refusal
    END AS reason
    FROM judged
), made AS (
    INSERT INTO expected_devices (
        uuid, fleet_id, mqtt_broker_id, {listed(EXPECTED)}
    )
    SELECT uuid, fleet_id, mqtt_broker_id, {listed(EXPECTED)}
    FROM decided WHERE reason IS NULL
)
SELECT index, reason, now() FROM decided
""")  # noqa: S608 - of constants

FACTS: dict[str, MooringError] = facts("mqtt_broker_id") | {
    fact.reason: fact
    for fact in (
        FleetUnknown("there is no such fleet", field="fleet_id"),
        Forbidden("this token is restricted to other fleets than that of this uuid", field="uuid"),
        UuidNotAllowed("uuids of this fleet must begin with its prefix", field="uuid"),
        UuidReserved("this uuid is reserved", field="uuid"),
        TokenUsedUp("this token has added its maximum number of devices"),
        DeviceRegistered("this device has registered already", field="uuid"),
        DeviceExpected("this device is expected already", field="uuid"),
    )
}


class ExpectedDeviceStore:
    """Rows come from `expected_devices`. Fleets that are not among `within` do not exist for
    callers.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def create(
        self, rows: Sequence[Mapping[str, Any]], within: Fleets
    ) -> dict[int, MooringError | datetime]:
        """For each row, by its `index`: when it was added, or why it was not.

        A transaction adds at most CHUNK rows. Raises `Unavailable`, and `LostRace` if a broker or
        fleet was deleted meanwhile: earlier chunks stay then.
        """
        outcomes: dict[int, MooringError | datetime] = {}
        for begin in range(0, len(rows), CHUNK):
            outcomes |= await self._create_chunk(rows[begin : begin + CHUNK], within)
        return outcomes

    async def _create_chunk(
        self, rows: Sequence[Mapping[str, Any]], within: Fleets
    ) -> dict[int, MooringError | datetime]:
        asked = {"rows": json.dumps(rows), "within": None if within is None else sorted(within)}
        try:
            async with writing(self._engine) as connection:
                places = await places_left(connection)
                await connection.execute(LOCK_TABLE)
                found = await connection.execute(CREATE, {**asked, "places": places})
                outcomes = {index: FACTS[why] if why else at for index, why, at in found.all()}
                made = [row for row in rows if isinstance(outcomes[row["index"]], datetime)]
                if places is not None:
                    await take_places(connection, len(made))
                await _record_made(connection, made)
        except IntegrityError:
            raise LostRace("a fleet or broker of a device has changed", retry_after_s=1.0) from None
        return outcomes

    async def expected_device(self, uuid: str, within: Fleets) -> sa.Row[Any]:
        """Raises `ExpectedDeviceNotFound`."""
        query = sa.select(*_columns).where(_is(uuid, within))
        async with reading(self._engine) as connection:
            return _found((await connection.execute(query)).one_or_none())

    async def expected_devices_after(
        self,
        uuid: str | None,
        limit: int,
        within: Fleets,
        *,
        fleet_id: str | None = None,
        registered: bool | None = None,
        uuid_prefix: str = "",
    ) -> Sequence[sa.Row[Any]]:
        """The next `limit` expected devices after `uuid`, in the order of their uuids. An argument
        that is None excludes none.
        """
        query = sa.select(*_columns)
        if uuid is not None:
            query = query.where(expected_devices.c.uuid > uuid)
        if fleet_id is not None:
            query = query.where(expected_devices.c.fleet_id == fleet_id)
        if registered is not None:
            arrived = expected_devices.c.registered_at
            query = query.where(arrived.is_not(None) if registered else arrived.is_(None))
        if uuid_prefix:
            # A range, which the index answers. No uuid has a character from AFTER_ALL on.
            query = query.where(
                expected_devices.c.uuid >= uuid_prefix,
                expected_devices.c.uuid < uuid_prefix + AFTER_ALL,
            )
        fleet, key = expected_devices.c.fleet_id, expected_devices.c.uuid
        page = page_within(query, fleet, key, limit, within)
        async with reading(self._engine) as connection:
            return (await connection.execute(page)).all()

    async def delete(self, uuid: str, within: Fleets) -> None:
        """Raises `ExpectedDeviceNotFound`."""
        delete = sa.delete(expected_devices).where(_is(uuid, within)).returning(*_columns)
        async with writing(self._engine) as connection:
            await connection.execute(LOCK_TABLE)
            row = _found((await connection.execute(delete)).one_or_none())
            named = {
                column.name: value
                for column in _columns
                if (value := getattr(row, column.name)) is not None
                and column.name not in ("uuid", "created_at", "registered_at")
            }
            await audit.record(connection, "expected_device.delete", uuid, before=named)


async def _record_made(connection: AsyncConnection, made: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line of the audit log for all rows."""
    if len(made) == 1:
        named = {name: value for name, value in made[0].items() if name not in ("index", "uuid")}
        await audit.record(connection, "expected_device.create", made[0]["uuid"], after=named)
    elif made:
        named = {"uuids": [row["uuid"] for row in made]}
        await audit.record(connection, "expected_device.create", "", after=named)


def _is(uuid: str, within: Fleets) -> sa.ColumnElement[bool]:
    theirs = is_within(expected_devices.c.fleet_id, within)
    return sa.and_(expected_devices.c.uuid == uuid, theirs)


def _found(row: sa.Row[Any] | None) -> sa.Row[Any]:
    if row is None:
        raise ExpectedDeviceNotFound("no such device is expected")
    return row
