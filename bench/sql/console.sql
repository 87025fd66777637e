-- Devices as unevenly spread as real ones: most are of one fleet, type, region and broker, a few are
-- of others. Names begin with two words, uuids with "dev-" or without.
WITH made_fleets AS (
    INSERT INTO fleets (id, name) VALUES ('big', 'Big'), ('tail', 'Tail'), ('three', 'Three')
    RETURNING id
), made_keys AS (
    INSERT INTO provisioning_keys (id, key_hash, fleet_id)
    SELECT md5('key of ' || id)::uuid, sha256(('key of ' || id)::bytea), id
    FROM (
        SELECT id FROM made_fleets
        UNION ALL SELECT id FROM fleets WHERE starts_with(id, 'fleet-')
    ) AS keyless
)
INSERT INTO devices (uuid, device_name, device_type, fleet_id, region, mqtt_broker_id,
                     told_broker_ids, told_source, is_active, is_online, has_short_api_key,
                     credential_key_id, api_key_hash, provisioned_by_key_id, provisioned_at,
                     mqtt_username, mqtt_password_hash, credential_salt)
SELECT uuid, CASE WHEN n %% 10 = 0 THEN 'pump ' ELSE 'Device ' END || md5('name' || n),
       CASE WHEN n > 900000 AND n %% 7 = 0 THEN 'esp32' ELSE 'raspberry-pi-4' END, fleet,
       CASE WHEN n > 950000 THEN 'eu' WHEN n %% 100000 = 5 THEN 'us' ELSE '' END,
       CASE WHEN n %% 1000 = 0 THEN 1 + n / 1000 END,
       CASE WHEN n %% 50000 = 3 THEN '{3}' WHEN n %% 100 = 0 THEN '{2}' ELSE '{1}' END::integer[],
       'default', n %% 5000 <> 0, n %% 3 = 0, n %% 20000 = 0, 1,
       decode(md5('api' || uuid) || md5('key' || uuid), 'hex'),
       md5('key of ' || fleet)::uuid, now() - (1000000 - n) * interval '8 seconds',
       'device_' || uuid, md5(uuid) || md5('hash' || uuid), md5('salt' || uuid)
FROM (
    SELECT n, CASE WHEN n %% 2 = 0 THEN 'dev-' ELSE '' END || md5(n::text) AS uuid,
           CASE WHEN n <= 900000 THEN 'big' WHEN n <= 990000 THEN 'fleet-' || 1 + n %% 50
                WHEN n <= 999997 THEN 'tail' ELSE 'three' END AS fleet
    FROM generate_series(1, %s) AS n
) AS made
