"""Probes brokers and decides their states, so that devices avoid a broker that is down.

Each broker is probed as a device would use it. The states are in the table `broker_states`, which
the resolution reads; results of probes have tables of their own.
"""
