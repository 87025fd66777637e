"""Devices, as administrators see and change them."""
