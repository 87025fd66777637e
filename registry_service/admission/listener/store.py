"""Reads subjects, brokers' secrets and changes of access from the database, in batches.

It connects as mooring_access, whose rights are limited to these statements. The statements are
text, as in registry_service/provisioning/statements.py.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from chassis.database import Pool, fetched, text_array
from registry_service.admission.subjects import Subject

# The brokers that may admit a device: the brokers of its last answer; for a device that has not
# registered, the broker of its pin or its fleet.
BROKERS = """
    CASE WHEN device.provisioned_by_key_id IS NOT NULL THEN device.told_broker_ids
         ELSE array_remove(ARRAY[coalesce(device.mqtt_broker_id, fleet.mqtt_broker_id)], NULL)
    END
"""

# Reads devices by their uuids, imported ones and service accounts by their usernames, and the
# devices whose uuids client ids name, all as of one moment.
LOOK_UP = f"""
SELECT
    (SELECT coalesce(json_agg(found), '[]')::text FROM (
        SELECT device.mqtt_username AS username, device.uuid, device.fleet_id,
               device.is_active AND fleet.is_active AS is_active,
               {BROKERS} AS broker_ids,
               json_build_object(
                   'algorithm', device.password_algorithm, 'hash', device.mqtt_password_hash,
                   'salt', device.credential_salt
               ) AS password,
               CASE WHEN device.previous_until IS NOT NULL THEN json_build_object(
                   'algorithm', 'sha256', 'hash', device.previous_password_hash,
                   'salt', device.previous_salt
               ) END AS previous,
               coalesce(extract(epoch FROM device.previous_until), 0)::double precision
                   AS previous_until,
               device.previous_broker_ids,
               ARRAY['iot/device/' || device.uuid || '/#'] AS publish,
               ARRAY['iot/device/' || device.uuid || '/#'] AS subscribe
        FROM (
            SELECT id FROM devices
            WHERE uuid = ANY (%s::text[]) AND mqtt_username = 'device_' || uuid
            UNION
            SELECT id FROM devices
            WHERE mqtt_username = ANY (%s::text[]) AND provisioned_by_key_id IS NULL
        ) AS named
        JOIN devices AS device ON device.id = named.id
        JOIN fleets AS fleet ON fleet.id = device.fleet_id
    ) AS found),
    (SELECT coalesce(json_agg(found), '[]')::text FROM (
        SELECT username, is_active, broker_ids, publish, subscribe,
               json_build_object(
                   'algorithm', 'sha256', 'hash', password_hash, 'salt', password_salt
               ) AS password,
               extract(epoch FROM expires_at)::double precision AS expires_at
        FROM service_accounts WHERE username = ANY (%s::text[])
    ) AS found),
    (SELECT coalesce(json_agg(found), '[]')::text FROM (
        SELECT device.uuid, {BROKERS} AS broker_ids
        FROM devices AS device JOIN fleets AS fleet ON fleet.id = device.fleet_id
        WHERE device.uuid = ANY (%s::text[])
    ) AS found)
"""  # noqa: S608 - put together from what is above

# Reads the changes of access by transactions that had not ended at the last reading or began since,
# and the first transaction that has not ended now. Lines get their numbers before they are
# committed, so a lower number may appear later.
CHANGES = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
       (SELECT coalesce(json_agg(found), '[]')::text FROM (
           SELECT usernames, fleet_ids FROM access_changes WHERE xact >= %s
       ) AS found)
"""

SECRETS = """
SELECT secret.secret_hash, secret.id::text, secret.broker_id, broker.client_id_prefix
FROM broker_secrets AS secret JOIN mqtt_broker_config AS broker ON broker.id = secret.broker_id
"""
NOTE_USE = "UPDATE broker_secrets SET last_used_at = now() WHERE id = ANY (%s::uuid[])"

# Whether a broker's report about a device is written to its row. If the row has a later report of
# the same broker, it is not, so replicas may write in any order. Only the broker to which a device
# connected last may report that it has disconnected.
IS_WRITTEN = """
    said.may_say AND CASE
        WHEN device.presence_broker_id IS NULL THEN true
        WHEN device.presence_broker_id = said.broker_id THEN said.at >= device.presence_at
        ELSE said.is_online
    END
"""
# Changes devices that the broker serves, or that connected to it last. A device is not written more
# than once a minute only because it was seen.
NOTE_PRESENCE = f"""
WITH given AS (
    SELECT %s::integer AS broker_id, *
    FROM json_to_recordset(%s::json) AS given (username text, is_online boolean, at_ms bigint)
), said AS MATERIALIZED (
    SELECT device.id, given.broker_id, given.is_online,
           to_timestamp(given.at_ms / 1000.0) AS at,
           given.broker_id = ANY ({BROKERS}) AS is_served,
           given.is_online IS NOT NULL AND (
               given.broker_id = ANY ({BROKERS})
               OR NOT given.is_online
                  AND device.presence_broker_id IS NOT DISTINCT FROM given.broker_id
           ) AS may_say
    FROM given JOIN LATERAL (
        SELECT id FROM devices
        WHERE uuid = substr(given.username, 8) AND mqtt_username = given.username
        UNION
        SELECT id FROM devices
        WHERE mqtt_username = given.username AND provisioned_by_key_id IS NULL
    ) AS named ON true
    JOIN devices AS device ON device.id = named.id
    JOIN fleets AS fleet ON fleet.id = device.fleet_id
), changed AS MATERIALIZED (
    SELECT device.id
    FROM said JOIN devices AS device ON device.id = said.id
    WHERE ({IS_WRITTEN}) OR said.is_served AND (
        device.last_seen_at IS NULL OR device.last_seen_at < now() - interval '1 minute'
    )
), locked AS MATERIALIZED (
    SELECT id FROM devices WHERE id IN (SELECT id FROM changed) ORDER BY id FOR NO KEY UPDATE
), written AS (
    UPDATE devices AS device
    SET is_online = CASE WHEN {IS_WRITTEN} THEN said.is_online ELSE device.is_online END,
        presence_broker_id =
            CASE WHEN {IS_WRITTEN} THEN said.broker_id ELSE device.presence_broker_id END,
        presence_at = CASE WHEN {IS_WRITTEN} THEN said.at ELSE device.presence_at END,
        last_seen_at = now()
    FROM said JOIN locked ON locked.id = said.id
    WHERE device.id = said.id
)
SELECT count(*) FROM said WHERE is_online IS NOT NULL AND NOT (is_served OR may_say)
"""  # noqa: S608 - likewise


class Change(Struct, frozen=True):
    """The users and fleets whose access has changed."""

    usernames: list[str]
    fleet_ids: list[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A lookup: subjects by their usernames, and devices that may exist."""

    # The uuids in usernames that contain one.
    uuids: Collection[str]
    # All other usernames, of service accounts and of imported devices.
    usernames: Collection[str]
    claimed: Collection[str]


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a lookup."""

    subjects: Mapping[str, Subject]
    # For each device that a client id names: the brokers that may admit it.
    claimed: Mapping[str, frozenset[int]]


class Claimed(Struct, frozen=True):
    """A device that a client id names."""

    uuid: str
    broker_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Asker:
    """A broker that has authenticated with one of its secrets."""

    secret_id: str
    broker_id: int
    client_id_prefix: str


_subjects = msgspec.json.Decoder(list[Subject])
_claimed = msgspec.json.Decoder(list[Claimed])
_changes = msgspec.json.Decoder(list[Change])


class AccessStore:
    """Every method raises `Unavailable` for a lost connection."""

    def __init__(self, pool: Pool) -> None:
        """`pool` connects as mooring_access."""
        self._pool = pool

    async def look_up(self, wanted: Wanted) -> Found:
        """Reads the rows in one round trip. Usernames hold no NUL, and uuids are identifiers."""
        usernames = list(wanted.usernames)
        values = [text_array(wanted.uuids), usernames, usernames, text_array(wanted.claimed)]
        [(devices, accounts, claimed)] = await fetched(self._pool, LOOK_UP, values)
        subjects = (*_subjects.decode(devices), *_subjects.decode(accounts))
        found = {subject.username: subject for subject in subjects}
        named = {device.uuid: device.broker_ids for device in _claimed.decode(claimed)}
        return Found(found, named)

    async def changes_since(self, horizon: int) -> tuple[int, list[Change]]:
        """The changes since the call that returned `horizon`, and the next `horizon`. A change may
        be returned twice. 0 begins with the first change.
        """
        [(next_horizon, changes)] = await fetched(self._pool, CHANGES, [horizon])
        return next_horizon, _changes.decode(changes)

    async def askers(self) -> dict[bytes, Asker]:
        """The brokers by the SHA-256 of their secrets."""
        rows = await fetched(self._pool, SECRETS, [])
        return {bytes(secret_hash): Asker(*rest) for secret_hash, *rest in rows}

    async def note_use(self, secret_ids: Collection[str]) -> None:
        """Records that these secrets were used."""
        await fetched(self._pool, NOTE_USE, [list(secret_ids)])

    async def note_presence(
        self, broker_id: int, seen: Mapping[str, tuple[bool | None, int]]
    ) -> int:
        """Writes a broker's reports about devices. Returns how many of the devices the broker does
        not serve; these are not changed. Reports are by username: whether the device is online
        (None if not known), and at what time (Unix ms).
        """
        rows = [
            {"username": name, "is_online": is_online, "at_ms": at_ms}
            for name, (is_online, at_ms) in seen.items()
        ]
        document = msgspec.json.encode(rows).decode()
        [(refused,)] = await fetched(self._pool, NOTE_PRESENCE, [broker_id, document])
        return int(refused)
