"""Encrypts all secrets in the database again, under the ring's active key."""
