"""Broker secrets: what a broker proves itself with when it asks who may connect."""
