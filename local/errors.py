"""The one error that ends a run for a reason a person can act on."""


class CannotRun(Exception):
    """Its text is for the person at the terminal: one line, and log lines where they help."""
