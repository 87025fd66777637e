"""What ends one row, and lets the others go on."""


class CannotMeasure(Exception):
    """Its text says in one line why a row has no figures, or none that could be trusted."""
