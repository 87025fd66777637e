"""Registers devices, and answers which broker they connect to."""
