"""Server keys: which devices use which, and ending one that has leaked."""
