"""What refers to a broker: devices, fleets, keys; and moving that to another broker."""
