"""Answers MQTT brokers: whether a client may connect, publish, subscribe and receive messages.

This package contains the questions, the verdicts, and the dialects of the brokers. It reads the
registry's tables, and writes only presence, the use of secrets, and the audit log.
"""
