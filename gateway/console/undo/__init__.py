"""Undoing changes of pins, brokers, the default and rollouts."""
