-- One device per transaction: the work of a service that registers devices one by one.
\set random random(1, 9223372036854775806)
BEGIN;
SELECT id, fleet_id FROM provisioning_keys WHERE key_hash = decode(:key_hash, 'hex') \gset key_
INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_username, mqtt_password_hash,
                     credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id)
VALUES (md5(:random::text)::uuid::text, 'Test Device', 'raspberry-pi-4', :key_fleet_id,
        'device_' || md5(:random::text)::uuid::text, :key_hash, md5(:key_hash), 1,
        decode(:key_hash, 'hex'), :key_id::uuid);
UPDATE provisioning_keys SET devices_provisioned = devices_provisioned + 1, last_used_at = now()
WHERE id = :key_id::uuid;
SELECT * FROM mqtt_broker_config
WHERE id = COALESCE(
  (SELECT mqtt_broker_id FROM devices WHERE uuid = md5(:random::text)::uuid::text),
  (SELECT id FROM mqtt_broker_config WHERE is_default = true LIMIT 1)
);
COMMIT;
