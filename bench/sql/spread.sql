-- Moves every hundredth device to one of so many fleets, each of which has a key, and pins it to
-- one of so many brokers.
WITH made_keys AS (
    INSERT INTO provisioning_keys (id, key_hash, fleet_id)
    SELECT md5('key of ' || id)::uuid, sha256(('key of ' || id)::bytea), id
    FROM fleets WHERE starts_with(id, 'fleet-')
)
UPDATE devices
SET fleet_id = moved.fleet_id, provisioned_by_key_id = md5('key of ' || moved.fleet_id)::uuid,
    mqtt_broker_id = moved.broker_id
FROM (
    SELECT id, 'fleet-' || 1 + id / 100 %% %s AS fleet_id, 1 + id / 100 %% %s AS broker_id
    FROM devices WHERE id %% 100 = 0
) AS moved
WHERE devices.id = moved.id
