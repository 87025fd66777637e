"""What MQTT brokers ask about devices: who may connect, publish, subscribe and be sent messages.

Owns the questions, the answers to them and the dialects in which brokers put them. Reads what the
registry knows of devices and brokers, and writes nothing of theirs.
"""
