-- So many fleets; every second one has a broker of its own.
INSERT INTO fleets (id, name, mqtt_broker_id)
SELECT 'fleet-' || n, 'Fleet ' || n, CASE WHEN n %% 2 = 0 THEN 1 + n %% 1000 END
FROM generate_series(1, %s) AS n
