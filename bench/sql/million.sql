-- Devices with the numbers from the first to the last, with uuids as random as real ones.
INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_username, mqtt_password_hash,
                     credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id)
SELECT uuid, 'Test Device', 'raspberry-pi-4', key.fleet_id, 'device_' || uuid,
       md5(uuid) || md5('hash' || uuid), md5('salt' || uuid), 1,
       decode(md5('api' || uuid) || md5('key' || uuid), 'hex'), key.id
FROM (SELECT id, fleet_id FROM provisioning_keys LIMIT 1) AS key,
     (SELECT md5(n::text)::uuid::text AS uuid FROM generate_series(%s, %s) AS n) AS made
