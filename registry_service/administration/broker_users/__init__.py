"""Counts the devices, fleets and keys that refer to a broker, and moves them to another broker."""
