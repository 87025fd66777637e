"""Counts of devices: folds the changes that statements append to `device_count_changes`."""
