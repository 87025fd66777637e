"""The error that ends a run for a reason that the user can correct."""


class CannotRun(Exception):
    """Its text is for the person at the terminal: one line, and log lines where they help."""
