"""Checks of single values from clients."""

import math
import re

from chassis.errors import InvalidInput

# The control characters, with NUL, which PostgreSQL's texts cannot hold.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The form of a device's uuid and a fleet's id. They become parts of MQTT topics, usernames and
# URLs, so they have no "/", "+" and "#". They have no "." and "*", because RabbitMQ maps "/" to "."
# in topics, and no ":", because RabbitMQ and VerneMQ separate parts of names with it. docs/note.md
# has all reasons.
IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A MAC address as most tools write it.
MAC_ADDRESS = re.compile(
    r"(?:[0-9A-Fa-f]{2}[:.]){5}[0-9A-Fa-f]{2}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}"
)
# The characters that an Authorization header can hold unchanged (RFC 9110, section 5.5): no space,
# only ASCII.
TOKEN = re.compile(r"[\x21-\x7e]*")


def check_text(field: str, value: str, *, longest: int, shortest: int = 0) -> None:
    """Raises `InvalidInput` for a text that is too short or too long, or has control characters."""
    if not shortest <= len(value) <= longest:
        raise InvalidInput(f"must have {shortest} to {longest} characters", field=field)
    # Printable text has no control characters, and checking that is faster.
    if not value.isprintable() and CONTROL.search(value):
        raise InvalidInput("must not contain control characters", field=field)


def check_token(field: str, value: str, *, shortest: int, longest: int) -> None:
    """Raises `InvalidInput` for a text that is too short or too long, or that an Authorization
    header cannot hold.
    """
    if not shortest <= len(value) <= longest:
        raise InvalidInput(f"must have {shortest} to {longest} characters", field=field)
    if not TOKEN.fullmatch(value):
        raise InvalidInput("must be printable ASCII without spaces", field=field)


def check_range(field: str, value: float, lowest: float, highest: float) -> None:
    """Raises `InvalidInput` unless `value` is a number from `lowest` to `highest`."""
    if math.isnan(value) or not lowest <= value <= highest:
        raise InvalidInput(f"must be from {lowest} to {highest}", field=field)


def check_identifier(field: str, value: str) -> None:
    """Raises `InvalidInput`, with advice, unless the value is an `IDENTIFIER`."""
    if IDENTIFIER.fullmatch(value):
        return
    message = "must be 1 to 64 letters, digits, underscores or hyphens"
    if MAC_ADDRESS.fullmatch(value):
        mended = re.sub("[:.]", "", value) if value.count(".") == 2 else re.sub("[:.]", "-", value)
        message += f": write this MAC address as {mended}"
    elif IDENTIFIER.fullmatch(value.replace(":", "-").replace(".", "-")):
        message += ": write hyphens instead of colons and dots"
    raise InvalidInput(message, field=field)
