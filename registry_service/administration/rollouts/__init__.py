"""Rollouts: a fleet's way to another broker, a wave of its devices at a time."""
