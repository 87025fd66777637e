"""Checks that a fleet or a key names a broker or a pool, and not both."""

from collections.abc import Mapping
from typing import Any

from chassis.errors import InvalidInput

# The columns that name a broker, and those beside them that name a pool.
BROKER_OR_POOL = {"mqtt_broker_id": "pool_id", "default_broker_id": "default_pool_id"}


def require_one_place(changed: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raises `InvalidInput` for the changed column if a broker and a pool would be named. `before`
    are the columns before the change; a column that it lacks has no value.
    """
    after = {**before, **changed}
    for broker, pool in BROKER_OR_POOL.items():
        if after.get(broker) is None or after.get(pool) is None:
            continue
        field, other = (broker, pool) if changed.get(pool) is None else (pool, broker)
        if changed.get(field) is not None:
            raise InvalidInput(f"cannot be combined with {other}: set that to null", field=field)
