-- Every hundredth device is moved to one of so many fleets and pinned to one of so many brokers.
UPDATE devices SET fleet_id = 'fleet-' || 1 + id / 100 %% %s, mqtt_broker_id = 1 + id / 100 %% %s
WHERE id %% 100 = 0
