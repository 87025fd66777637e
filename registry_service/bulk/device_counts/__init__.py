"""Counts of devices: what statements appended to `device_count_changes` is folded into them."""
