"""Encrypts all secrets in the database again, with the ring's active key."""
