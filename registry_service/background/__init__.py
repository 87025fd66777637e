"""Earlier names of commands."""
