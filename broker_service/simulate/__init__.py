"""Runs devices through a described pool with outages, without any server: how they spread, how many
move, and how long they need to recover. All decisions are those of domain/pools.py.
"""
