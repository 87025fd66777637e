"""Brokers that are driven: what a device may do is written into them, and sessions are ended.

A stock Mosquitto with its dynamic security plugin asks nobody: its clients and roles are kept in
step with the database over a control topic, and written into its file before it first starts.
"""
