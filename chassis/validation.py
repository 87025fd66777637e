"""Checks of single values that came from outside."""

import math
import re

from chassis.errors import InvalidInput

# Also NUL, which PostgreSQL's text cannot hold.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A device's uuid and a fleet's id: they become parts of MQTT topics and URLs, and some brokers map
# "/" to "." and split on ":".
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# What an Authorization header can carry as it is (RFC 9110, section 5.5): no space, no Unicode.
TOKEN = re.compile(r"[\x21-\x7e]*")


def check_text(field: str, value: str, *, longest: int, shortest: int = 0) -> None:
    """Raises `InvalidInput` unless the length is right and nothing in it is a control character."""
    if not shortest <= len(value) <= longest:
        raise InvalidInput(f"must have {shortest} to {longest} characters", field=field)
    # What is printable has none; that is asked more quickly.
    if not value.isprintable() and CONTROL.search(value):
        raise InvalidInput("must not contain control characters", field=field)


def check_token(field: str, value: str, *, shortest: int, longest: int) -> None:
    """Raises `InvalidInput` unless the length is right and an Authorization header can carry it."""
    if not shortest <= len(value) <= longest:
        raise InvalidInput(f"must have {shortest} to {longest} characters", field=field)
    if not TOKEN.fullmatch(value):
        raise InvalidInput("must be printable ASCII without spaces", field=field)


def check_range(field: str, value: float, lowest: float, highest: float) -> None:
    """Raises `InvalidInput` unless `value` is a number from `lowest` to `highest`."""
    if math.isnan(value) or not lowest <= value <= highest:
        raise InvalidInput(f"must be from {lowest} to {highest}", field=field)


def check_identifier(field: str, value: str) -> None:
    """Raises `InvalidInput` unless it is [A-Za-z0-9][A-Za-z0-9_-]{0,63}, and nothing else."""
    if not IDENTIFIER.fullmatch(value):
        raise InvalidInput(
            "must be 1 to 64 letters, digits, underscores or hyphens, a letter or digit first",
            field=field,
        )
