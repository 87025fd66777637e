"""Service accounts: MQTT users that are no devices, with topics of their own."""
