"""Pools of brokers, and what their changes move."""
