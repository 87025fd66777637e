"""Changes that are made only if the resource has not changed since the caller read it."""

from collections.abc import Collection

from chassis.errors import LostRace


def require_revision(what: str, revision: int, if_revision: Collection[int]) -> None:
    """Raises `LostRace` unless `if_revision` is empty or holds the present `revision`.

    `what` is the kind of the resource. Its row is locked until the change is made.
    """
    if if_revision and revision not in if_revision:
        raise LostRace(f"the {what} has changed since: it is at revision {revision}")
