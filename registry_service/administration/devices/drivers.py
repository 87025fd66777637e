"""By which index the devices of a filter are found.

A filter is a conjunction, so each of its conditions that has an index could find its devices: the
others are then checked for each device read. Which condition is best depends on the data, and
statistics know neither few devices nor conditions that exclude one another. So it is measured how
far each index comes with the same number of rows, beginning where the page begins, and the one that
comes farthest is read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from chassis.isolation import Fleets
from registry_service.administration.devices.orders import BY_UUID, ID, TIMES, Key, Phase
from registry_service.device_filter import NOT
from registry_service.filter_statements import CONDITIONS

# More values than this are not read one after the other.
MAX_POINTS = 200


class Indexed(NamedTuple):
    """A value that has an index, in which the devices of a value are in the order of their ids."""

    value: str
    type: str
    # What the index leaves out: the value in a filter, and the condition on the others.
    missing: Any = None
    present: str = "true"


INDEXED: dict[str, Indexed] = {
    "fleet_id": Indexed("device.fleet_id", "text"),
    "device_type": Indexed("device.device_type", "text"),
    "region": Indexed("device.region", "text", "", "device.region <> ''"),
    "mqtt_broker_id": Indexed(
        "device.mqtt_broker_id", "integer", 0, "device.mqtt_broker_id IS NOT NULL"
    ),
    "pool_id": Indexed("device.pool_id", "integer", 0, "device.pool_id IS NOT NULL"),
    "told_broker_id": Indexed("coalesce(device.told_broker_ids[1], 0)", "integer"),
    "credential_key_id": Indexed(
        "device.credential_key_id", "integer", 0, "device.credential_key_id IS NOT NULL"
    ),
}
# Rare states, each with an index of its devices in the order of their ids.
STATES = {
    ("is_active", False): "NOT device.is_active",
    ("short_api_key", True): "device.has_short_api_key",
}
# The devices that were imported and have not registered are in a small index too.
IMPORTED = "device.provisioned_by_key_id IS NULL"


class Driver(NamedTuple):
    """An index that finds the devices that meet `where`, and maybe others of the filter.

    With `points`, they are also of one of these values of `indexed`. `keys` is the order in which
    the index has the devices, of each point, if it is one of a list.
    """

    where: str
    keys: tuple[Key, ...] = ()
    points: Sequence[Any] | None = None
    indexed: Indexed | None = None
    # Whether neighbours in the index lie far apart in the table, so that each costs a page.
    is_scattered: bool = False


def enumerated(conditions: Mapping[str, Any], within: Fleets) -> list[str]:
    """The fields whose values have to be known, to read all but the excluded ones."""
    return [
        name
        for name, indexed in INDEXED.items()
        if (excluded := _excluded(name, conditions))
        and name not in conditions
        and (indexed.missing is None or indexed.missing in excluded)
        and not (name == "fleet_id" and within is not None)
    ]


def drivers_of(
    phase: Phase,
    conditions: Mapping[str, Any],
    within: Fleets,
    values: Mapping[str, Sequence[Any]],
) -> list[Driver]:
    """The indexes that find the devices of a phase. The first reads the phase in its order.

    `values` are those of the fields `enumerated`, as far as they are not too many.
    """
    found = [Driver(phase.walked, phase.keys, is_scattered=phase.is_scattered)]
    for name, indexed in INDEXED.items():
        points = points_of(name, conditions, within, values.get(name))
        if points is not None and len(points) <= MAX_POINTS:
            found.append(Driver(indexed.present, (ID,), points, indexed))
        elif indexed.missing is not None and indexed.missing in _excluded(name, conditions):
            # All devices with a value, where there are too many values to read one by one.
            found.append(Driver(indexed.present))
    found += [
        Driver(where, (ID,))
        for (name, value), where in STATES.items()
        if conditions.get(name) is value
    ]
    if conditions.get("provisioned_by_key_id") == "":
        found.append(Driver(IMPORTED))
    times = " AND ".join(CONDITIONS[name] for name in TIMES if name in conditions)
    prefixes = BY_UUID.format(name="uuid_prefix") if "uuid_prefix" in conditions else ""
    for where in (times, prefixes):
        if where and where != phase.walked:
            found.append(Driver(where))
    return found


def points_of(
    name: str, conditions: Mapping[str, Any], within: Fleets, values: Sequence[Any] | None
) -> Sequence[Any] | None:
    """The values of a field that devices of the filter can have; None if they are not known."""
    excluded = _excluded(name, conditions)
    if name in conditions:
        points: Sequence[Any] = [conditions[name]]
        if name == "fleet_id" and within is not None:
            points = [point for point in points if point in within]
        if INDEXED[name].missing in points:
            return None
    elif name == "fleet_id" and within is not None:
        points = sorted(within)
    elif values is not None:
        points = values
    else:
        return None
    return [point for point in points if point not in excluded]


def _excluded(name: str, conditions: Mapping[str, Any]) -> Sequence[Any]:
    excluded = list(conditions.get(f"{NOT}{name}", ()))
    if name == "mqtt_broker_id" and conditions.get("is_pinned"):
        excluded.append(0)
    return excluded


class Reach(NamedTuple):
    """How far a driver comes: it has read all up to `until`, in the order of a phase.

    `until` is None where it has read all that it finds. `is_known` is false for a driver that finds
    more than it was allowed to read, and has another order.
    """

    until: Sequence[Any] | None
    is_known: bool = True

    @classmethod
    def of(cls, driver: Driver, phase: Phase, keys: Sequence[Any] | None) -> "Reach":
        """The reach of a driver; the device behind the rows that it may read has `keys`."""
        return cls(keys, is_known=keys is None or driver.keys == phase.keys)

    @property
    def is_complete(self) -> bool:
        """Whether no device of the filter lies beyond."""
        return self.is_known and self.until is None


def farthest(reaches: Sequence[Reach]) -> int:
    """The number of the driver to read. The first is always known."""
    for number, reach in enumerate(reaches):
        if reach.is_complete:
            return number
    # Drivers that are known and not complete have one order, so their ends can be compared.
    known = {number: reach.until for number, reach in enumerate(reaches) if reach.is_known}
    return max(known, key=lambda number: (known[number], -number))
