"""Who points at a broker: devices, fleets, provisioning keys; and moving them to another."""
