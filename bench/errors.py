"""The error that ends one row, while the other rows go on."""


class CannotMeasure(Exception):
    """Its text says in one line why a row has no figures, or only unreliable ones."""
