"""The differences between two revisions of a pool."""

from collections.abc import Mapping
from typing import Any

from broker_service.differences import Change

COMPARED = (
    *("name", "description", "policy", "is_sticky", "is_default", "rebalance_percent", "members"),
)


def differences(
    before: Mapping[Any, Any] | None, after: Mapping[Any, Any] | None
) -> dict[str, Change]:
    """The fields in which two revisions differ, by name. One that is None stands for no pool."""
    changes = {}
    for name in COMPARED:
        old, new = (before or {}).get(name), (after or {}).get(name)
        if old != new:
            changes[name] = Change(old, new)
    return changes
