"""Service accounts: MQTT users that are not devices, with their own topics."""
