"""Resolves the brokers of devices, from a snapshot of brokers and fleets and from devices' rows."""
