"""Which broker serves a device, and the brokers' settings and certificates.

Owns the tables `mqtt_broker_config` and `certificates`; reads where devices and fleets are placed.
"""
