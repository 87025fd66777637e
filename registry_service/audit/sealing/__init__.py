"""Seals over the audit log: a chain under a key outside the database, to detect tampering.

A process of its own, `python -m registry_service.audit.sealing`; `… verify` checks the chain.
"""
