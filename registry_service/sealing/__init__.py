"""Seals over the audit log: a chain under a key outside the database, so that tampering shows.

A process of its own, `python -m registry_service.sealing`; `… verify` checks the chain.
"""
