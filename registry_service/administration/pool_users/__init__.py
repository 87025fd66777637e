"""Counts the devices, fleets and keys that refer to a pool, and moves them."""
