"""Devices that operators name before they register."""
