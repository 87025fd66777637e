"""Seals over the audit log: a chain under a key outside the database, to detect tampering.

A separate process, `python -m registry_service.audit.sealing`; `… verify` checks the chain.
"""
