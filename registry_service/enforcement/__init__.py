"""Manages brokers: keeps the clients of a Mosquitto in step, and ends sessions.

A stock Mosquitto with its dynamic security plugin asks nobody: its clients and roles are kept in
step with the database over a control topic, and written into its file before it first starts.
"""
