"""Devices that operators name before they arrive."""
