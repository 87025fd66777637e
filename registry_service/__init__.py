"""Devices, fleets, provisioning keys, API tokens and the devices' credentials.

Owns their tables. Calls the broker service to resolve the broker of a device, when it registers and
whenever it asks.
"""
