"""The error that ends a run for a reason that the user can correct."""


class CannotRun(Exception):
    """The text is for the person at the terminal: one line, and log lines if they help."""
