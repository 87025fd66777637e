-- Provisioning keys with these hashes, in the fleet of the first key.
INSERT INTO provisioning_keys (key_hash, fleet_id)
SELECT decode(hash, 'hex'), first.fleet_id
FROM (SELECT fleet_id FROM provisioning_keys LIMIT 1) AS first, unnest(%s::text[]) AS hash
