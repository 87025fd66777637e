"""Answering which broker: the snapshot of brokers and fleets, and the lookup of devices."""
