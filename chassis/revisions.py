"""Changes that are made only if the resource has not changed since the caller read it."""

import hashlib
import json
from collections.abc import Collection, Sequence

from chassis.errors import LostRace

# JSON numbers are exact in every language up to here.
BITS = 52


def revision_of_values(values: Sequence[object]) -> int:
    """A number that stands for the values, from 1, for resources whose rows have no counter."""
    digest = hashlib.sha256(json.dumps(values).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - BITS)) or 1


def require_revision(what: str, revision: int, if_revision: Collection[int]) -> None:
    """Raises `LostRace` unless `if_revision` is empty or holds the present `revision`.

    `what` is the kind of the resource. Its row is locked until the change is made.
    """
    if if_revision and revision not in if_revision:
        raise LostRace(f"the {what} has changed since: it is at revision {revision}")
