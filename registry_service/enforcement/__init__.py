"""Only the earlier names of commands."""
