"""Broker secrets, with which brokers authenticate when they ask about clients."""
