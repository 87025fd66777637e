"""Counts how many devices of a filter have which values of some fields, with bounded work.

For each field, its own conditions are ignored, so that a user can choose another value. First the
devices are read that the best index finds with so many rows. If these are not all devices, some
devices of each value are read too: the counts are lower bounds then.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from registry_service.administration.devices import search_statements as statements
from registry_service.administration.devices.drivers import (
    INDEXED,
    Reach,
    farthest,
    points_of,
)
from registry_service.administration.devices.filter_store import Search, Step
from registry_service.administration.devices.orders import Phase, phases_of
from registry_service.filter_statements import VALUES, matching

MAX_VALUES = 50
# How many rows are read for all facets of a request: by the best index, the second number if they
# are scattered over the table; and as samples of each value.
ROWS, ROWS_OF_SAMPLES = (5_000, 2_000), 6_000
# A search is one condition of many in a sample; phases are for lists.
EVERYWHERE = Phase((), "", "true")


class Count(NamedTuple):
    """How many devices there are; with `is_capped` maybe more."""

    devices: int
    is_capped: bool


NO_COUNT = Count(0, is_capped=True)


class Facet(NamedTuple):
    """The counts of the values of a field; with `is_truncated`, values may be missing."""

    values: Sequence[tuple[Any, Count]]
    is_truncated: bool


class _Group(NamedTuple):
    """Fields whose facets are about the same devices: those of `search`."""

    search: Search
    names: Sequence[str]
    steps: Sequence[Step] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the steps read all devices."""
        return not any(step.bounds.is_bounded for step in self.steps)


async def counted(search: Search, names: Sequence[str]) -> list[Facet]:
    """The facets of the fields, in three statements for all of them."""
    groups, values = await _begun(search, names)
    walked = await _walked(search, groups)
    samples = await _sampled(search, groups, values)
    facets = {}
    for group in groups:
        for name in group.names:
            counts = {
                value: Count(devices, not group.is_complete)
                for value, devices in walked[name].items()
            }
            for value, sample in samples.get(name, {}).items():
                if counts.get(value, NO_COUNT).devices <= sample.devices:
                    counts[value] = sample
            is_cut = not group.is_complete and len(values[name]) > MAX_VALUES
            facets[name] = _facet(counts, is_cut=is_cut)
    return [facets[name] for name in names]


async def _begun(
    search: Search, names: Sequence[str]
) -> tuple[list[_Group], Mapping[str, Sequence[Any]]]:
    """The fields, with what to read for them; and the first values of each field."""
    own = {
        name: other
        for name in names
        if (other := search.without(name)).conditions != search.conditions
    }
    groups = [_Group(other, [name]) for name, other in own.items()]
    if rest := [name for name in names if name not in own]:
        groups.append(_Group(search, rest))
    tried = [
        (phase, driver)
        for group in groups
        for phase in phases_of(group.search.conditions)
        for driver in group.search.drivers(phase)
    ]
    values = {name: points_of(name, {}, search.within, None) for name in names}
    unknown = [name for name in names if values[name] is None]
    statement = statements.together(
        [
            *(
                statements.reach(number, driver, phase, is_begun=False)
                for number, (phase, driver) in enumerate(tried)
            ),
            *(statements.listed(statements.values_of(INDEXED[name])) for name in unknown),
        ]
    )
    rows, few = ROWS
    found = await search.execute(
        statement,
        [driver for _, driver in tried],
        rows=rows // len(names),
        few=few // len(names),
        size=MAX_VALUES + 1,
    )
    [row] = found
    values |= zip(unknown, row[len(tried) :], strict=True)
    reached, numbers = iter(row), count()
    return (
        [group._replace(steps=[*_steps(group.search, reached, numbers)]) for group in groups],
        {name: known or () for name, known in values.items()},
    )


def _steps(search: Search, reached: Iterator[Any], numbers: Iterator[int]) -> Iterator[Step]:
    for number, phase in enumerate(phases_of(search.conditions)):
        drivers = search.drivers(phase)
        reaches = [Reach.of(driver, phase, next(reached)) for driver in drivers]
        chosen = farthest(reaches)
        bounds = statements.Bounds(None, reaches[chosen].until, of=f"_{next(numbers)}")
        yield Step(number, phase, drivers, chosen, bounds, None)


async def _walked(search: Search, groups: Sequence[_Group]) -> Mapping[str, Counter[Any]]:
    """How many of the devices that the steps read have which values."""
    read = [(group, step) for group in groups for step in group.steps]
    queries = (
        statements.grouped(
            number,
            step.driver,
            step.phase,
            group.search.filtered(step.phase),
            [VALUES[name][1] for name in group.names],
            step.bounds,
        )
        for number, (group, step) in enumerate(read)
    )
    parameters = {name: value for _, step in read for name, value in step.bounds.parameters.items()}
    found = await search.execute(
        statements.together(map(statements.listed, queries)),
        [step.driver for _, step in read],
        **parameters,
    )
    counts: dict[str, Counter[Any]] = {name: Counter() for group in groups for name in group.names}
    for (group, _), rows in zip(read, found.one(), strict=True):
        for others, *of_fields, devices in rows:
            # The bits are those of the other fields; the first field has the highest.
            place = len(group.names) - (~others & (1 << len(group.names)) - 1).bit_length()
            counts[group.names[place]][of_fields[place]] += devices
    return counts


async def _sampled(
    search: Search, groups: Sequence[_Group], values: Mapping[str, Sequence[Any]]
) -> Mapping[str, Mapping[Any, Count]]:
    """For fields of which not all devices were read: the counts of the first values, each among its
    first devices.
    """
    names = [name for group in groups for name in group.names]
    parameters: dict[str, Any] = {}
    queries: list[tuple[str, str]] = []
    for group in groups:
        filtered = group.search.filtered(EVERYWHERE)
        if "search" in group.search.conditions:
            filtered += f" AND {matching(['search'])}"
        for name in () if group.is_complete else group.names:
            indexed, points = INDEXED[name], values[name][:MAX_VALUES]
            parameters |= {
                f"values_{name}": points,
                f"rows_{name}": ROWS_OF_SAMPLES // len(names) // max(1, len(points)),
            }
            queries.append((name, statements.per_value(name, indexed, filtered)))
            if indexed.missing is not None:
                queries.append((name, statements.without_value(name, indexed, filtered)))
    if not queries:
        return {}
    found = await search.execute(
        statements.together(statements.listed(query) for _, query in queries), **parameters
    )
    samples: dict[str, dict[Any, Count]] = {name: {} for name in names}
    for (name, _), rows in zip(queries, found.one(), strict=True):
        samples[name] |= {value: Count(devices, is_cut) for value, devices, is_cut in rows}
    return samples


def _facet(counts: Mapping[Any, Count], *, is_cut: bool) -> Facet:
    """The most frequent values first. A value of which no device was found is left out: a caller
    that may not see its devices must not see the value.
    """
    frequent = sorted(counts.items(), key=lambda item: (-item[1].devices, item[0]))
    present = [(value, count) for value, count in frequent if count.devices]
    is_hidden = any(not count.devices and count.is_capped for count in counts.values())
    return Facet(present[:MAX_VALUES], is_cut or is_hidden or len(present) > MAX_VALUES)
