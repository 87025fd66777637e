"""The SQL statements of registering. Each reads or changes a batch in one round trip.

They are text that is given to the driver unchanged: building a statement from objects costs several
times as much as a batch of devices. Rows are sent as one JSON document, which takes a fifth of the
time of one array for each column (docs/performance.md). Each statement is a transaction by itself.
"""

from registry_service.attributes import EXPECTED, NAMES, listed, typed

# Reads one row with five documents: the keys with the given hashes, the devices with the given
# uuids, the expected devices with these uuids, the fleets whose prefixes reserve these uuids, and
# those of the given regions that exist.
# The row also has the version of brokers and fleets, as of the same moment.
READ = f"""
SELECT
    (SELECT coalesce(json_agg(found), '[]')::text FROM (
        SELECT encode(key.key_hash, 'base64') AS hash,
               json_build_object(
                   'id', key.id, 'fleet_id', key.fleet_id, 'is_active', key.is_active,
                   'expires_at', nullif(key.expires_at, 'infinity'), 'max_devices', key.max_devices,
                   'devices_provisioned', key.devices_provisioned,
                   'default_broker_id', key.default_broker_id,
                   'default_pool_id', key.default_pool_id, 'revision', key.revision,
                   'fleet_is_active', fleet.is_active, 'fleet_uuid_prefix', fleet.uuid_prefix,
                   'restrictions', CASE WHEN key.only_expected OR num_nonnulls(
                       key.allowed_device_types, key.source_networks, key.allowed_uuids,
                       key.uuid_prefix
                   ) > 0 THEN json_build_object(
                       'device_types', key.allowed_device_types,
                       'source_networks', key.source_networks, 'uuids', key.allowed_uuids,
                       'uuid_prefix', key.uuid_prefix, 'only_expected', key.only_expected
                   ) END
               ) AS key,
               coalesce(fleet.mqtt_broker_id, fleet.pool_id) IS NOT NULL OR fleet.is_restricted
                   AS fleet_has_rule,
               fleet.revision AS fleet_revision,
               CASE WHEN fleet.rollout_salt IS NOT NULL THEN json_build_object(
                   'salt', fleet.rollout_salt, 'percent', fleet.rollout_percent
               ) END AS rollout
        FROM provisioning_keys AS key
        JOIN fleets AS fleet ON fleet.id = key.fleet_id
        WHERE key.key_hash = ANY (%s::bytea[])
    ) AS found),
    (SELECT coalesce(json_agg(found), '[]')::text FROM (
        SELECT device.id, device.uuid, device.device_name, device.device_type,
               encode(coalesce(device.api_key_hash, ''), 'base64') AS api_key_hash,
               coalesce(device.credential_key_id, 0) AS credential_key_id,
               device.credential_salt,
               device.salt_broker_ids, device.provisioned_by_key_id,
               device.proved_from, device.has_short_api_key,
               device.rotations, device.rotations_since,
               device.is_active AND fleet.is_active AS is_active,
               device.reprovisioning_allowed, device.created_at,
               coalesce(device.told_at > now() - interval '5 seconds', false) AS was_just_told,
               json_build_object(
                   'told_broker_ids', device.told_broker_ids,
                   'told_source', device.told_source, 'told_ca_ids', device.told_ca_ids,
                   'home_broker_id', device.home_broker_id
               ) AS note,
               device.region, device.latitude, device.longitude,
               json_build_object(
                   'broker_id', device.mqtt_broker_id, 'fleet_id', device.fleet_id,
                   'pool_id', device.pool_id, 'region', coalesce(region.id, ''),
                   'fleet_has_rule', coalesce(fleet.mqtt_broker_id, fleet.pool_id) IS NOT NULL
                       OR fleet.is_restricted,
                   'fleet_revision', fleet.revision,
                   'wave', CASE
                       WHEN rollout_position(fleet.rollout_salt, device.uuid)
                            < fleet.rollout_percent * 100
                       THEN fleet.rollout_salt ELSE ''
                   END
               ) AS placement
        FROM devices AS device
        JOIN fleets AS fleet ON fleet.id = device.fleet_id
        LEFT JOIN regions AS region ON region.id = device.region
        WHERE device.uuid = ANY (%s::text[])
    ) AS found),
    (SELECT coalesce(json_agg(found), '[]')::text FROM (
        SELECT id, uuid, fleet_id, mqtt_broker_id, json_strip_nulls(json_build_object(
            {", ".join(f"'{name}', {name}" for name in EXPECTED)}
        )) AS attributes
        FROM expected_devices
        WHERE uuid = ANY (%s::text[])
    ) AS found),
    (SELECT coalesce(json_object_agg(uuid, fleet_id), '{{}}')::text FROM (
        SELECT uuid, reserved_for(uuid) AS fleet_id FROM unnest(%s::text[]) AS asked (uuid)
        WHERE (SELECT EXISTS (SELECT FROM fleets WHERE uuid_prefix IS NOT NULL))
    ) AS found WHERE fleet_id IS NOT NULL),
    (SELECT coalesce(json_agg(id), '[]')::text FROM regions
     WHERE id = ANY (%s::text[])
        OR id IN (SELECT region FROM expected_devices WHERE uuid = ANY (%s::text[]))),
    (SELECT version::text FROM placement_version),
    current_setting('synchronous_standby_names') <> ''
        AND current_setting('synchronous_commit') NOT IN ('off', 'local')
"""  # noqa: S608 - of constants

# Makes sure that a synchronous standby has the rows from which devices are answered: the commit
# waits until the standby has all earlier commits. If a device was deleted or has another salt, the
# statement returns no row: the device's row was read from a server that is no longer the leader, or
# it has changed since.
MARK = """
WITH same AS (
    SELECT count(*) AS devices
    FROM unnest(%s::bigint[], %s::text[]) AS given (id, salt)
    JOIN devices AS device ON device.id = given.id AND device.credential_salt = given.salt
)
SELECT pg_logical_emit_message(true, 'mooring', '') FROM same WHERE devices = %s
"""

# Inserts devices that do not exist yet, in the order of the uuids, and counts the inserted ones for
# each key. The keys are locked first, in the order of their ids, so that replicas cannot deadlock.
# A key that was revoked, has expired or was changed since it was read inserts nothing; if a key
# would exceed its limit, the whole statement fails (constraint limit_is_kept). Nothing is inserted
# if brokers or fleets have another version than the given one, if any. The version and the fleets'
# revisions are read when the statement begins, also if it then waits for a key: a transaction that
# changes them meanwhile is acknowledged after the statement began. A uuid is not inserted if an
# operator has changed its expected device: such a change locks the whole table of expected devices,
# for which this statement waits before it reads. A uuid is not inserted either if its prefix
# reserves it for another fleet. The last parameter says whether any device is expected; if none is,
# the statement does not search the expected devices.
CREATE = f"""
WITH key AS MATERIALIZED (
    SELECT key.id, key.revision AS key_revision, fleet.revision
    FROM provisioning_keys AS key
    JOIN fleets AS fleet ON fleet.id = key.fleet_id
    JOIN placement_version AS placed ON placed.version = coalesce(%s, placed.version)
    WHERE key.id = ANY (%s::uuid[])
      AND key.is_active AND (key.expires_at IS NULL OR key.expires_at > now())
    ORDER BY key.id
    FOR NO KEY UPDATE OF key
), made AS (
    INSERT INTO devices (
        {listed(NAMES)}, uuid, fleet_id, mqtt_broker_id, pool_id, home_broker_id, mqtt_username,
        mqtt_password_hash, credential_salt, credential_key_id, api_key_hash,
        provisioned_by_key_id, told_broker_ids, told_source, told_ca_ids, told_at, proved_from,
        has_short_api_key
    )
    SELECT {listed(NAMES)}, uuid, given.fleet_id, mqtt_broker_id, pool_id, home_broker_id,
           mqtt_username, mqtt_password_hash, credential_salt, credential_key_id,
           decode(api_key_hash, 'base64'), provisioned_by_key_id, told_broker_ids, told_source,
           told_ca_ids, now(), proved_from, has_short_api_key
    FROM json_to_recordset(%s::json) AS given (
        {typed(NAMES)}, uuid text, fleet_id text, fleet_revision bigint, mqtt_broker_id integer,
        pool_id integer, home_broker_id integer, mqtt_username text,
        mqtt_password_hash text, credential_salt text, credential_key_id integer,
        api_key_hash text, provisioned_by_key_id uuid, told_broker_ids integer[],
        told_source text, told_ca_ids integer[], key_revision bigint, expected_id bigint,
        proved_from text, has_short_api_key boolean
    )
    JOIN key ON key.id = given.provisioned_by_key_id
        AND key.key_revision = given.key_revision
        AND key.revision = given.fleet_revision
    LEFT JOIN (SELECT uuid AS expected_uuid, id AS found_id FROM expected_devices) AS expected
        ON expected_uuid = given.uuid
    WHERE found_id IS NOT DISTINCT FROM given.expected_id
      AND (
          NOT (SELECT EXISTS (SELECT FROM fleets WHERE uuid_prefix IS NOT NULL))
          OR coalesce(reserved_for(uuid), given.fleet_id) = given.fleet_id
      )
    ORDER BY uuid COLLATE "C"
    ON CONFLICT (uuid) DO NOTHING
    RETURNING id, uuid, created_at, provisioned_by_key_id
), counted AS (
    UPDATE provisioning_keys AS counter
    SET devices_provisioned = counter.devices_provisioned + per_key.n, last_used_at = now()
    FROM (SELECT provisioned_by_key_id, count(*) AS n FROM made GROUP BY 1) AS per_key
    WHERE counter.id = per_key.provisioned_by_key_id
), arrived AS (
    UPDATE expected_devices AS expected SET registered_at = now()
    FROM made WHERE %s AND expected.uuid = made.uuid
)
SELECT uuid, id, created_at FROM made
"""  # noqa: S608 - of constants

# Locks keys that are nearly used up. The rest of a limit is known only while the key's row is
# locked.
LOCK_KEYS = """
SELECT id, fleet_id, is_active, nullif(expires_at, 'infinity'), max_devices,
       devices_provisioned, default_broker_id
FROM provisioning_keys
WHERE id = ANY (%s::uuid[])
ORDER BY id
FOR NO KEY UPDATE
"""

# Gives devices new credentials if the device still allows it (an imported device does once) and the
# key has not changed since it was read. Returns the ids of the changed devices. Keys are locked
# before devices, and both in the order of their ids, as in all statements that change several rows.
RENEW = """
WITH given AS (
    SELECT * FROM json_to_recordset(%s::json) AS given (
        id bigint, provisioned_by_key_id uuid, key_revision bigint, mqtt_username text,
        mqtt_password_hash text, credential_salt text, credential_key_id integer, api_key_hash text,
        told_broker_ids integer[], told_source text, told_ca_ids integer[], proved_from text,
        has_short_api_key boolean, home_broker_id integer, region text,
        latitude double precision, longitude double precision
    )
), key AS MATERIALIZED (
    SELECT id, revision FROM provisioning_keys
    WHERE id IN (SELECT provisioned_by_key_id FROM given) AND is_active
    ORDER BY id FOR SHARE
), allowed AS MATERIALIZED (
    SELECT given.* FROM given
    JOIN key ON key.id = given.provisioned_by_key_id AND key.revision = given.key_revision
), locked AS MATERIALIZED (
    SELECT id FROM devices WHERE id IN (SELECT id FROM allowed) ORDER BY id FOR NO KEY UPDATE
)
UPDATE devices AS device
SET credential_salt = given.credential_salt,
    credential_key_id = given.credential_key_id,
    provisioned_by_key_id = given.provisioned_by_key_id,
    api_key_hash = decode(given.api_key_hash, 'base64'),
    mqtt_username = given.mqtt_username,
    mqtt_password_hash = given.mqtt_password_hash,
    password_algorithm = 'sha256',
    previous_password_hash = NULL, previous_salt = NULL, previous_until = NULL,
    previous_broker_ids = NULL,
    salt_broker_ids = NULL,
    proved_from = given.proved_from,
    has_short_api_key = given.has_short_api_key,
    reprovisioning_allowed = false,
    provisioned_at = now(),
    told_broker_ids = given.told_broker_ids,
    told_source = given.told_source,
    told_ca_ids = given.told_ca_ids,
    home_broker_id = given.home_broker_id,
    region = coalesce(given.region, device.region),
    latitude = coalesce(given.latitude, device.latitude),
    longitude = coalesce(given.longitude, device.longitude),
    told_at = now()
FROM allowed AS given JOIN locked ON locked.id = given.id
WHERE device.id = given.id
  AND (device.reprovisioning_allowed OR device.provisioned_by_key_id IS NULL)
RETURNING device.id
"""

# Gives devices new credentials if the salt has not changed since it was read: every change of
# credentials makes a new salt. The previous password, if any, is valid for the given seconds. The
# first rotation in an hour that a device asks for is a line of the audit log; a trigger writes the
# number of the later ones when the hour is over. Returns the ids of the changed devices.
ROTATE = """
WITH given AS (
    SELECT * FROM json_to_recordset(%s::json) AS given (
        id bigint, replaced_salt text, mqtt_password_hash text, credential_salt text,
        credential_key_id integer, api_key_hash text, is_asked boolean,
        told_broker_ids integer[], told_source text, told_ca_ids integer[], proved_from text,
        has_short_api_key boolean, home_broker_id integer, region text,
        latitude double precision, longitude double precision
    )
), locked AS MATERIALIZED (
    SELECT id FROM devices WHERE id IN (SELECT id FROM given) ORDER BY id FOR NO KEY UPDATE
), grace AS (
    SELECT CASE WHEN seconds > 0 THEN now() + make_interval(secs => seconds) END AS until
    FROM (SELECT %s::double precision AS seconds) AS given
), rotated AS (
    UPDATE devices AS device
    SET (
            previous_password_hash, previous_salt, previous_until, previous_broker_ids
        ) = (
            SELECT device.mqtt_password_hash, device.credential_salt, grace.until,
                   nullif(coalesce(device.salt_broker_ids, device.told_broker_ids), '{}')
            WHERE grace.until IS NOT NULL AND device.password_algorithm <> 'none'
        ),
        mqtt_password_hash = given.mqtt_password_hash,
        password_algorithm = 'sha256',
        credential_salt = given.credential_salt,
        credential_key_id = given.credential_key_id,
        salt_broker_ids = NULL,
        proved_from = coalesce(nullif(given.proved_from, ''), device.proved_from),
        has_short_api_key = given.has_short_api_key,
        rotations_since = CASE
            WHEN given.is_asked AND device.rotations_since > now() - interval '1 hour'
                OR NOT given.is_asked THEN device.rotations_since
            ELSE now()
        END,
        rotations = CASE
            WHEN NOT given.is_asked THEN device.rotations
            WHEN device.rotations_since > now() - interval '1 hour' THEN device.rotations + 1
            ELSE 1
        END,
        rotated_at = CASE WHEN given.is_asked THEN now() ELSE device.rotated_at END,
        api_key_hash = decode(given.api_key_hash, 'base64'),
        told_broker_ids = given.told_broker_ids,
        told_source = given.told_source,
        told_ca_ids = given.told_ca_ids,
        home_broker_id = given.home_broker_id,
        region = coalesce(given.region, device.region),
        latitude = coalesce(given.latitude, device.latitude),
        longitude = coalesce(given.longitude, device.longitude),
        told_at = now()
    FROM given JOIN locked ON locked.id = given.id CROSS JOIN grace
    WHERE device.id = given.id AND device.credential_salt = given.replaced_salt
    RETURNING device.id, device.uuid, given.is_asked AND device.rotations = 1 AS is_first
), noted AS (
    INSERT INTO audit_log (actor, actor_id, action, subject, request_id)
    SELECT 'device', uuid, 'device.rotate_credentials', uuid, %s FROM rotated WHERE is_first
)
SELECT id FROM rotated
"""

# Records answers. The brokers for which the salt was made stay recorded.
RECORD_ANSWERS = """
WITH given AS (
    SELECT * FROM json_to_recordset(%s::json) AS given (
        id bigint, told_broker_ids integer[], told_source text, told_ca_ids integer[],
        proved_from text, has_short_api_key boolean, home_broker_id integer, region text,
        latitude double precision, longitude double precision
    )
), locked AS MATERIALIZED (
    SELECT id FROM devices WHERE id IN (SELECT id FROM given) ORDER BY id FOR NO KEY UPDATE
)
UPDATE devices AS device
SET salt_broker_ids = coalesce(device.salt_broker_ids, device.told_broker_ids),
    told_broker_ids = given.told_broker_ids,
    told_source = given.told_source,
    told_ca_ids = given.told_ca_ids,
    home_broker_id = given.home_broker_id,
    region = coalesce(given.region, device.region),
    latitude = coalesce(given.latitude, device.latitude),
    longitude = coalesce(given.longitude, device.longitude),
    proved_from = coalesce(nullif(given.proved_from, ''), device.proved_from),
    has_short_api_key = given.has_short_api_key,
    told_at = now()
FROM given JOIN locked ON locked.id = given.id
WHERE device.id = given.id
"""

# Adds failed attempts of devices to a period, in the order of the table's key. Returns the new
# sums, and the sums of other replicas that are beyond a limit.
EXCHANGE_FAILURES = """
WITH given AS (
    SELECT * FROM json_to_recordset(%s::json) AS given (
        device_uuid text, address text, failures integer
    )
), counted AS (
    INSERT INTO api_key_failures AS known (began_at, device_uuid, address, failures)
    SELECT to_timestamp(%s), device_uuid, address, failures FROM given
    ORDER BY device_uuid COLLATE "C", address COLLATE "C"
    ON CONFLICT (began_at, device_uuid, address)
        DO UPDATE SET failures = known.failures + excluded.failures
    RETURNING device_uuid, address, failures
), others AS (
    SELECT device_uuid, address, failures FROM api_key_failures
    WHERE began_at = to_timestamp(%s) AND failures >= %s
    LIMIT %s
)
SELECT * FROM counted UNION ALL SELECT * FROM others
"""
