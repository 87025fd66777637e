-- So many brokers beside the default.
INSERT INTO mqtt_broker_config (name, host, port, protocol, use_tls, ca_certificate_id, region)
SELECT 'Broker ' || n, 'mqtt-' || n || '.example.com', 8883, 'mqtts', true, ca.id, 'region-' || n %% 10
FROM (SELECT ca_certificate_id AS id FROM mqtt_broker_config WHERE is_default) AS ca,
     generate_series(1, %s) AS n
