"""Rings of keys. They are files outside the database, so that the database alone reveals no
secrets.
"""

import json
from base64 import b64decode
from pathlib import Path


def read_keys(file: Path, kind: str) -> tuple[int, dict[int, bytes]]:
    """The id of the active key, and all keys by their ids.

    The file holds `{"active": 1, "keys": [{"id": 1, "secret": "<base64>"}]}`. Raises `SystemExit`
    if the file is not a ring of `kind`, or has no active key.
    """
    try:
        ring = json.loads(file.read_text())
        keys = {int(key["id"]): b64decode(key["secret"], validate=True) for key in ring["keys"]}
        active_id = int(ring["active"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{file}: not a ring of {kind} ({type(error).__name__})") from None
    if active_id not in keys:
        raise SystemExit(f"{file}: the active key is missing")
    return active_id, keys
