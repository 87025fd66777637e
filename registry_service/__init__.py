"""Devices, fleets, provisioning keys, API tokens and the devices' credentials.

Owns their tables. Asks the broker service which broker a device should use, while provisioning and
whenever the device asks.
"""
