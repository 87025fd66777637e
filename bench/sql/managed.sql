-- So many keys and tokens with ids like the devices' uuids, expected devices, and lines of the
-- audit log, one per second from the beginning of 2026.
WITH made_keys AS (
    INSERT INTO provisioning_keys (id, key_hash, fleet_id)
    SELECT md5(n::text)::uuid, sha256(('key' || n)::bytea), 'demo' FROM generate_series(1, %s) AS n
), made_tokens AS (
    INSERT INTO api_tokens (id, name, token_hash, role)
    SELECT md5(n::text)::uuid, 'Token ' || n, sha256(('token' || n)::bytea), 'viewer'
    FROM generate_series(1, %s) AS n
), made_expected AS (
    INSERT INTO expected_devices (uuid, fleet_id, device_name)
    SELECT 'expected-' || n, 'demo', 'Expected ' || n FROM generate_series(1, %s) AS n
)
INSERT INTO audit_log (at, actor, actor_id, action, subject, before, after, request_id)
SELECT '2026-01-01Z'::timestamptz + n * interval '1 second', 'Token ' || n %% 100,
       md5((n %% 100)::text)::uuid::text, 'broker.update', (1 + n %% 1000)::text,
       '{"keep_alive": 60}', '{"keep_alive": 30}', md5('request' || n)
FROM generate_series(1, %s) AS n
