-- So many devices, with passwords as in bench/lua/access.lua, which are notified of the default.
INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_username, mqtt_password_hash,
                     credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id,
                     told_broker_ids)
SELECT uuid, 'Test Device', 'raspberry-pi-4', key.fleet_id, 'device_' || uuid,
       encode(sha256(convert_to(md5(uuid) || 'password of ' || uuid, 'UTF8')), 'hex'), md5(uuid), 1,
       '\x00', key.id, ARRAY[broker.id]
FROM (SELECT id, fleet_id FROM provisioning_keys LIMIT 1) AS key,
     (SELECT id FROM mqtt_broker_config WHERE is_default) AS broker,
     (SELECT 'bench-' || lpad(n::text, 8, '0') AS uuid FROM generate_series(1, %s) AS n) AS made
