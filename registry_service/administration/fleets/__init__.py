"""Fleets: groups of devices, and the rule that places them."""
