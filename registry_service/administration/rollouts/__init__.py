"""Rollouts, which take a fleet to another broker in waves."""
