"""Fleets: groups of devices, with a rule for their broker."""
