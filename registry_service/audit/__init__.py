"""Reads the audit log. Each change writes its own line; `sealing/` seals them."""
