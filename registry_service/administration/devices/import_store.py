"""Imports devices into the database, a batch at a time."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import audit
from chassis.database import lock_shared, writing
from chassis.errors import LostRace, MooringError
from domain.turns import USERNAMES
from registry_service.administration.devices.importing import ImportedDevice
from registry_service.administration.quota_store import places_left, take_places
from registry_service.attributes import NAMES, listed, typed
from registry_service.errors import (
    BrokerNotAllowed,
    BrokerUnknown,
    FleetUnknown,
    TokenUsedUp,
    UsernameTaken,
    UuidNotAllowed,
    UuidReserved,
)

# `reason` says why a device is not created: it conflicts with rows of the database, or with an
# earlier device of the batch that has no reason. Devices without a reason are created, unless it is
# a dry run, in the order of their uuids, as registrations are. `made` is false for a device that
# another transaction has created since the statement began. If a created device was expected, its
# row in `expected_devices` becomes registered. The statement locks that table before reading it, so
# a transaction that adds an expected device waits for this one.
IMPORT = sa.text(f"""
WITH given AS MATERIALIZED (
    SELECT index, row.*, coalesce(row.mqtt_broker_id, named.id) AS pin
    FROM json_array_elements(CAST(:rows AS json)) WITH ORDINALITY AS item (document, index)
    CROSS JOIN json_to_record(document) AS row (
        {typed(NAMES)}, uuid text, fleet_id text, mqtt_username text,
        mqtt_password_hash text, credential_salt text, password_algorithm text, broker text,
        mqtt_broker_id integer
    )
    LEFT JOIN mqtt_broker_config AS named ON named.name = row.broker
), judged AS (
    SELECT given.*, CASE
        WHEN device.uuid IS NOT NULL THEN 'EXISTS'
        WHEN fleet.id IS NULL THEN 'FLEET_UNKNOWN'
        WHEN (given.broker IS NOT NULL OR given.mqtt_broker_id IS NOT NULL) AND pinned.id IS NULL
            THEN 'BROKER_UNKNOWN'
        WHEN given.pin IS NOT NULL AND fleet.is_restricted AND allowed.broker_id IS NULL
            THEN 'BROKER_NOT_ALLOWED'
        WHEN NOT starts_with(given.uuid, fleet.uuid_prefix) THEN 'UUID_NOT_ALLOWED'
        WHEN reserved_for(given.uuid) <> given.fleet_id THEN 'UUID_RESERVED'
        WHEN expected.fleet_id <> given.fleet_id THEN 'UUID_RESERVED'
        WHEN namesake.uuid IS NOT NULL OR account.id IS NOT NULL THEN 'USERNAME_TAKEN'
    END AS fault
    FROM given
    LEFT JOIN fleets AS fleet ON fleet.id = given.fleet_id
    LEFT JOIN mqtt_broker_config AS pinned ON pinned.id = given.pin
    LEFT JOIN fleet_brokers AS allowed
        ON allowed.fleet_id = given.fleet_id AND allowed.broker_id = given.pin
    LEFT JOIN devices AS device ON device.uuid = given.uuid
    LEFT JOIN devices AS namesake
        ON namesake.mqtt_username = given.mqtt_username AND namesake.provisioned_by_key_id IS NULL
    LEFT JOIN service_accounts AS account ON account.username = given.mqtt_username
    LEFT JOIN expected_devices AS expected ON expected.uuid = given.uuid
), once AS (
    SELECT *, CASE
        WHEN fault IS NULL
            AND row_number() OVER (PARTITION BY uuid, fault IS NULL ORDER BY index) > 1
            THEN 'EXISTS' ELSE fault
    END AS fault_or_repeated
    FROM judged
), decided AS MATERIALIZED (
    SELECT *, CASE
        WHEN fault_or_repeated IS NULL AND row_number() OVER (
            PARTITION BY mqtt_username, fault_or_repeated IS NULL ORDER BY index
        ) > 1 THEN 'USERNAME_TAKEN' ELSE fault_or_repeated
    END AS refusal
    FROM once
), granted AS MATERIALIZED (
    SELECT *, CASE
        WHEN refusal IS NULL AND row_number() OVER (
            PARTITION BY refusal IS NULL ORDER BY index
        ) > CAST(:places AS integer) THEN 'TOKEN_USED_UP' ELSE refusal
    END AS reason
    FROM decided
), made AS (
    INSERT INTO devices (
        {listed(NAMES)}, uuid, fleet_id, mqtt_username, mqtt_password_hash,
        credential_salt, password_algorithm, mqtt_broker_id, provisioned_at
    )
    SELECT {listed(NAMES)}, uuid, fleet_id, mqtt_username, mqtt_password_hash,
           credential_salt, password_algorithm, pin, NULL
    FROM granted
    WHERE reason IS NULL AND NOT :is_dry_run
    ORDER BY uuid COLLATE "C"
    ON CONFLICT DO NOTHING
    RETURNING uuid
), arrived AS (
    UPDATE expected_devices AS expected SET registered_at = now()
    FROM made WHERE expected.uuid = made.uuid
)
SELECT granted.reason, made.uuid IS NOT NULL OR :is_dry_run AS made
FROM granted LEFT JOIN made ON made.uuid = granted.uuid
ORDER BY granted.index
""")  # noqa: S608 - of constants

FACTS: dict[str, MooringError] = {
    fact.reason: fact
    for fact in (
        FleetUnknown("there is no such fleet", field="fleet_id"),
        BrokerUnknown("there is no such broker", field="broker"),
        BrokerNotAllowed("the fleet may not use this broker", field="broker"),
        UuidReserved("this device is for another fleet", field="uuid"),
        UuidNotAllowed("uuids of this fleet must begin with its prefix", field="uuid"),
        TokenUsedUp("this token has added its maximum number of devices"),
        UsernameTaken(
            "another device, or a service account, has this username", field="mqtt_username"
        ),
    )
}
ELSEWHERE = LostRace("another request is importing it: import it again")


class ImportStore:
    """Imports devices, a batch at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def import_devices(
        self, devices: Sequence[ImportedDevice], *, is_dry_run: bool
    ) -> list[bool | MooringError]:
        """For each device, in order: whether it was created (in a dry run, whether it would be), or
        why not. It is false for a device that exists already.

        Raises `LostRace` if a broker or fleet was deleted meanwhile: then no device was created.
        """
        if not devices:
            return []
        values: dict[str, Any] = {
            "rows": msgspec.json.encode(devices).decode(),
            "is_dry_run": is_dry_run,
        }
        try:
            async with writing(self._engine) as connection:
                values["places"] = places = await places_left(connection)
                await lock_shared(connection, USERNAMES)
                found = (await connection.execute(IMPORT, values)).all()
                outcomes = [_outcome(refusal, made) for refusal, made in found]
                if not is_dry_run:
                    if places is not None:
                        await take_places(connection, outcomes.count(True))
                    await _record(
                        connection,
                        [
                            device
                            for device, outcome in zip(devices, outcomes, strict=True)
                            if outcome is True
                        ],
                    )
        except IntegrityError:
            raise LostRace("a fleet or broker of a device has changed", retry_after_s=1.0) from None
        return outcomes


def _outcome(refusal: str | None, made: bool) -> bool | MooringError:
    if refusal is None:
        return True if made else ELSEWHERE
    return False if refusal == "EXISTS" else FACTS[refusal]


async def _record(connection: AsyncConnection, made: Sequence[ImportedDevice]) -> None:
    """Writes one line of the audit log for all devices."""
    if len(made) == 1:
        named = {
            name: value
            for name, value in msgspec.structs.asdict(made[0]).items()
            if value not in (None, "") and name not in ("uuid", "mqtt_password_hash")
        }
        await audit.record(connection, "device.import", made[0].uuid, after=named)
    elif made:
        named = {"uuids": [device.uuid for device in made]}
        await audit.record(connection, "device.import", "", after=named)
