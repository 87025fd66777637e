"""The statements that find the devices of a filter.

Each is put together for the conditions that are set. A subquery with OFFSET, which PostgreSQL plans
by itself, reads the devices of one index; the filter is checked outside of it. So the planner does
not choose another index, for which it would read all devices to find a few.

The parameters are those of the filter, `within`, `after_0`, `until_0`, … (the keys of positions),
`points_0`, … (the values of the drivers by their number) and what each function names.
"""

# ruff: noqa: S608 - statements are put together from constants, values are parameters

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chassis.isolation import Fleets
from registry_service.administration.devices.drivers import Driver, Indexed
from registry_service.administration.devices.orders import ID, Key, Phase
from registry_service.filter_statements import matching

WITHIN = "device.fleet_id = ANY (CAST(:within AS text[]))"
# Reads by an index with the values that are given, and does not compile what takes milliseconds.
PLANNED = (
    "SELECT set_config('transaction_read_only', 'on', true),"
    " set_config('plan_cache_mode', 'force_custom_plan', true),"
    " set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),"
    " set_config('jit', 'off', true)"
)


def filtering(phase: Phase, names: Iterable[str], within: Fleets) -> str:
    """The filter, as far as a phase does not say it."""
    rest = matching(name for name in names if name != "search")
    return " AND ".join([phase.condition, rest, *([] if within is None else [WITHIN])])


def probe(
    drivers: Sequence[Driver], phase: Phase, known: Sequence[Driver] = (), *, is_begun: bool
) -> str:
    """For each driver the keys of the device behind `rows` ones, as JSON; null if there is none, as
    is `known` of some.

    A driver that is scattered has `few` rows instead.
    """
    reaches = (
        "NULL::json" if driver in known else reach(number, driver, phase, is_begun=is_begun)
        for number, driver in enumerate(drivers)
    )
    return together(reaches)


def together(values: Iterable[str]) -> str:
    """One statement for several values, because each statement costs a round trip."""
    return f"SELECT {', '.join(values)}"


def listed(rows: str) -> str:
    """The rows of a query of one column as one value: a list, in JSON."""
    return f"(SELECT coalesce(json_agg(listed.value), '[]') FROM ({rows}) AS listed (value))"


def page(
    number: int, driver: Driver, phase: Phase, filtered: str, columns: str, bounds: "Bounds"
) -> str:
    """The first `size` devices by a driver, in the order of the phase, with their keys as JSON."""
    return (
        f"SELECT {columns}, {_json(phase.keys)} AS keys"
        f" FROM {_source(number, driver, phase, bounds, is_sorted=True)}"
        f" WHERE {filtered} AND {_beyond(phase.keys, bounds)}"
        f" ORDER BY {_listed(phase.keys)} LIMIT :size"
    )


def count(number: int, driver: Driver, phase: Phase, filtered: str, bounds: "Bounds") -> str:
    """How many devices, counted up to `size`."""
    return (
        "SELECT count(*) FROM (SELECT"
        f" FROM {_source(number, driver, phase, bounds)}"
        f" WHERE {filtered} AND {_beyond(phase.keys, bounds)} LIMIT :size) AS counted"
    )


def grouped(
    number: int,
    driver: Driver,
    phase: Phase,
    filtered: str,
    values: Sequence[str],
    bounds: "Bounds",
) -> str:
    """How many devices have which values, of several fields: for each value a list of which field
    it is of (its bit is 0, that of the last field is the first), the values (null for the other
    fields), and the number.
    """
    names = [f"value_{index}" for index in range(len(values))]
    columns = ", ".join(f"{value} AS {name}" for value, name in zip(values, names, strict=True))
    sets = ", ".join(f"({name})" for name in names)
    fields = ", ".join(names)
    return (
        f"SELECT json_build_array(grouping({fields}), {fields}, count(*))"
        f" FROM (SELECT {columns} FROM {_source(number, driver, phase, bounds)} WHERE {filtered})"
        f" AS found GROUP BY GROUPING SETS ({sets})"
    )


def values_of(indexed: Indexed) -> str:
    """The first `size` values of a field, read from its index one by one."""
    first = (
        f"SELECT {indexed.value} AS value FROM devices AS device WHERE {indexed.present}"
        f"{{after}} ORDER BY {indexed.value} LIMIT 1"
    )
    following = first.format(after=f" AND {indexed.value} > known.value")
    return (
        f"WITH RECURSIVE known AS (({first.format(after='')}) UNION ALL"
        f" SELECT following.value FROM known CROSS JOIN LATERAL ({following}) AS following)"
        " SELECT value FROM known LIMIT :size"
    )


def per_value(name: str, indexed: Indexed, filtered: str) -> str:
    """Of the first `rows_<name>` devices of each of the values `values_<name>`, as lists: the
    value, how many match, and whether there are more devices with the value.
    """
    rows = f"CAST(:rows_{name} AS bigint)"
    return (
        f"SELECT json_build_array(point.value, counted.found, counted.read > {rows})"
        f" FROM unnest(CAST(:values_{name} AS {indexed.type}[])) AS point (value)"
        f" CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE {filtered}) AS found,"
        f" count(*) AS read FROM (SELECT device.* {_within_value(indexed, '0', '')}"
        f" LIMIT {rows} + 1) AS device) AS counted"
    )


def without_value(name: str, indexed: Indexed, filtered: str) -> str:
    """The same for the devices that the index leaves out, among the first `rows_<name>` devices."""
    rows = f"CAST(:rows_{name} AS bigint)"
    value = f"'{indexed.missing}'::text" if indexed.type == "text" else indexed.missing
    return (
        f"SELECT json_build_array({value},"
        f" count(*) FILTER (WHERE NOT coalesce({indexed.present}, false) AND {filtered}),"
        f" count(*) > {rows})"
        " FROM (SELECT device.* FROM devices AS device ORDER BY device.id"
        f" LIMIT {rows} + 1) AS device"
    )


class Bounds:
    """Between which positions devices are read, and the parameters that say so."""

    def __init__(
        self, after: Sequence[Any] | None, until: Sequence[Any] | None, of: str = ""
    ) -> None:
        """None: from the beginning, to the end. `of` tells those of one statement apart."""
        self.is_begun = after is not None
        self.is_bounded = until is not None
        self.after, self.until = f"after{of}", f"until{of}"
        self.parameters: Mapping[str, Any] = {
            **{f"{self.after}_{number}": key for number, key in enumerate(after or ())},
            **{f"{self.until}_{number}": key for number, key in enumerate(until or ())},
        }


ANYWHERE = Bounds(None, None)


def reach(number: int, driver: Driver, phase: Phase, *, is_begun: bool) -> str:
    """The keys of the device behind `rows` ones of a driver, as a value."""
    size = ":few" if driver.is_scattered else ":rows"
    begun = f" AND {_compared(phase.keys, '>', 'after')}" if is_begun else ""
    if driver.keys != phase.keys:
        rows = f"SELECT '[]'::json FROM {_source(number, driver, phase, ANYWHERE)}"
        rows += f" OFFSET {size} LIMIT 1"
    elif driver.points is None:
        rows = (
            f"SELECT {_json(phase.keys)} FROM devices AS device WHERE {driver.where}{begun}"
            f" ORDER BY {_listed(phase.keys)} OFFSET {size} LIMIT 1"
        )
    else:
        # All values are read up to the first end of one of them.
        after = _given(ID, "after_0") if is_begun else "0"
        rows = (
            f"SELECT json_build_array(reach.id) FROM {_points(number, driver)}"
            f" CROSS JOIN LATERAL (SELECT device.id {_of_point(driver, after)}"
            f" OFFSET {size} / {max(1, len(driver.points))} LIMIT 1) AS reach"
            " ORDER BY reach.id LIMIT 1"
        )
    return f"({rows})"


def _source(
    number: int, driver: Driver, phase: Phase, bounds: "Bounds", *, is_sorted: bool = False
) -> str:
    """The devices that a driver finds between the bounds, if it keeps the order of the phase; else
    all that it finds.
    """
    is_ordered = driver.keys == phase.keys
    if driver.points is not None:
        after = _given(ID, f"{bounds.after}_0") if is_ordered and bounds.is_begun else "0"
        until = _given(ID, f"{bounds.until}_0") if is_ordered and bounds.is_bounded else ""
        return (
            f"{_points(number, driver)} CROSS JOIN LATERAL"
            f" (SELECT device.* {_of_point(driver, after, until)} OFFSET 0) AS device"
        )
    where, order = driver.where, ""
    if is_ordered:
        where += f" AND {_beyond(phase.keys, bounds)}"
        if bounds.is_bounded:
            where += f" AND {_compared(phase.keys, '<=', bounds.until)}"
        if is_sorted:
            order = f" ORDER BY {_listed(phase.keys)}"
    return f"(SELECT device.* FROM devices AS device WHERE {where}{order} OFFSET 0) AS device"


def _of_point(driver: Driver, after: str, until: str = "") -> str:
    """The devices of one value, in the order of their ids.

    The value is a range, and the ids are compared together with it: for an equality, the planner
    could read the index of all ids, which has that order too.
    """
    assert driver.indexed is not None  # noqa: S101 - a driver with points has an index
    return _within_value(driver.indexed, after, until)


def _within_value(indexed: Indexed, after: str, until: str) -> str:
    value, point = indexed.value, f"CAST(point.value AS {indexed.type})"
    end = f"({value}, device.id) <= ({point}, {until})" if until else f"{value} <= {point}"
    return (
        f"FROM devices AS device WHERE ({value}, device.id) > ({point}, {after})"
        f" AND {end} AND {indexed.present} ORDER BY {value}, device.id"
    )


def _points(number: int, driver: Driver) -> str:
    assert driver.indexed is not None  # noqa: S101 - likewise
    return f"unnest(CAST(:points_{number} AS {driver.indexed.type}[])) AS point (value)"


def _beyond(keys: Sequence[Key], bounds: "Bounds") -> str:
    return _compared(keys, ">", bounds.after) if bounds.is_begun else "true"


def _compared(keys: Sequence[Key], operator: str, name: str) -> str:
    given = [_given(key, f"{name}_{index}") for index, key in enumerate(keys)]
    compared = f"({_listed(keys)}) {operator} ({', '.join(given)})"
    if len(keys) == 1:
        return compared
    # If the first key has another condition too, PostgreSQL begins or ends the scan of the index at
    # that one, and not where the keys together do.
    return f"{keys[0].value} {operator.rstrip('=')}= {given[0]} AND {compared}"


def _given(key: Key, name: str) -> str:
    return f"CAST(:{name} AS {key.type})"


def _listed(keys: Sequence[Key]) -> str:
    return ", ".join(key.value for key in keys)


def _json(keys: Sequence[Key]) -> str:
    return f"json_build_array({_listed(keys)})"
