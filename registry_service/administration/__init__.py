"""Manages what operators configure: devices, fleets, keys, tokens, accounts, brokers' secrets."""
