"""Provisioning keys, as operators manage them."""
