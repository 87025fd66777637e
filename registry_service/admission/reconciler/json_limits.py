"""Decodes JSON from brokers, within a bound on the size of the result."""

from typing import Any

import msgspec

# The most values, each of about 60 bytes. A list of a plugin has a tenth of them.
MAX_VALUES = 500_000


def decoded(text: bytes, kind: Any) -> Any:
    """An object of `kind`. Raises `msgspec.MsgspecError` or `UnicodeError`."""
    if sum(text.count(sign) for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise msgspec.ValidationError(f"more than {MAX_VALUES} values")
    try:
        return msgspec.json.decode(text, type=kind)
    except RecursionError:
        raise msgspec.ValidationError("values within values, too deep") from None
