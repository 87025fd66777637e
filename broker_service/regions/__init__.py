"""Regions, which devices and brokers name."""
