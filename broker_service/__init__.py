"""Decides which broker serves a device, and stores the brokers' settings and certificates.

It owns the tables `mqtt_broker_config` and `certificates`, and reads the placements of devices and
fleets.
"""
