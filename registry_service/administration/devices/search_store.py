"""Finds the devices of a filter: pages, counts and counts by value, each with bounded work."""

import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.database import writing
from chassis.isolation import Fleets
from registry_service.administration.devices import search_statements as statements
from registry_service.administration.devices.drivers import (
    INDEXED,
    MAX_POINTS,
    Driver,
    Reach,
    drivers_of,
    enumerated,
    farthest,
    points_of,
)
from registry_service.administration.devices.orders import (
    BEGINNING,
    Phase,
    Position,
    phases_of,
)
from registry_service.filter_statements import VALUES, matching
from registry_service.tables import provisioning_keys

# How many rows an index reads in each step of a request, and how many if they are scattered over
# the table. The first step suffices where many devices match; the last ones are for filters that
# match few.
STEPS = ((1_000, 200), (8_000, 800), (32_000, 2_000))
MAX_COUNT = 10_000
MAX_VALUES = 50
# How many rows are read for the counts of all facets of a request: exactly, the second if they are
# scattered over the table; and as samples of each value.
FACETS_EXACT, FACETS_SAMPLE = (5_000, 2_000), 6_000


class Page(NamedTuple):
    """Rows, and where the next page begins; None at the end of the list."""

    rows: Sequence[sa.Row[Any]]
    following: Position | None


class Count(NamedTuple):
    """How many devices there are; with `is_capped` maybe more."""

    devices: int
    is_capped: bool


NO_COUNT = Count(0, is_capped=True)


class Facet(NamedTuple):
    """The counts of the values of a field; with `is_truncated`, values may be missing."""

    values: Sequence[tuple[Any, Count]]
    is_truncated: bool


@dataclass
class _Search:
    """A filter in a transaction."""

    connection: AsyncConnection
    conditions: Mapping[str, Any]
    within: Fleets
    values: dict[str, Sequence[Any]] = field(default_factory=dict)
    # What follows from the conditions.
    implied: dict[str, Any] = field(default_factory=dict)

    async def prepare(self) -> None:
        """Reads the values of fields of which some are excluded, and the fleet of the key."""
        if key_id := self.conditions.get("provisioned_by_key_id"):
            query = sa.select(provisioning_keys.c.fleet_id).where(
                provisioning_keys.c.id == uuid.UUID(key_id)
            )
            # All devices of a key are of its fleet; an unknown key has no devices.
            self.implied["fleet_id"] = await self.connection.scalar(query) or ""
        for name in enumerated(self.conditions, self.within):
            found = await self.values_of(name, MAX_POINTS + 1)
            if len(found) <= MAX_POINTS:
                self.values[name] = found

    async def values_of(self, name: str, size: int) -> Sequence[Any]:
        statement = sa.text(statements.values_of(INDEXED[name]))
        return (await self.connection.execute(statement, {"size": size})).scalars().all()

    def filtered(self, phase: Phase) -> str:
        return statements.filtering(phase, self.conditions, self.within)

    def drivers(self, phase: Phase) -> list[Driver]:
        return drivers_of(phase, {**self.implied, **self.conditions}, self.within, self.values)

    async def execute(
        self, statement: str, drivers: Sequence[Driver], **parameters: Any
    ) -> sa.CursorResult[Any]:
        text = sa.text(statement)
        given = {
            **self.conditions,
            "within": None if self.within is None else sorted(self.within),
            **{f"points_{number}": driver.points for number, driver in enumerate(drivers)},
            **parameters,
        }
        # The parameters of what the statement does not contain are left out.
        return await self.connection.execute(
            text, {name: given[name] for name in text.compile().params}
        )

    async def reaches(
        self,
        drivers: Sequence[Driver],
        phase: Phase,
        after: Sequence[Any] | None,
        size: tuple[int, int],
    ) -> list[Reach]:
        bounds = statements.Bounds(after, None)
        statement = statements.probe(drivers, phase, is_begun=after is not None)
        rows, few = size
        found = await self.execute(statement, drivers, rows=rows, few=few, **bounds.parameters)
        return [
            Reach(keys, is_known=keys is None or driver.keys == phase.keys)
            for driver, keys in zip(drivers, found.one(), strict=True)
        ]

    async def steps(self, begin: Position) -> AsyncIterator["_Step"]:
        """What to read, in order. The rows of a step are bounded, and so is their number."""
        phases = phases_of(self.conditions)
        number, after = begin
        for size in STEPS:
            while True:
                phase = phases[number]
                drivers = self.drivers(phase)
                reaches = await self.reaches(drivers, phase, after, size)
                chosen = farthest(reaches)
                until = reaches[chosen].until
                following: Position | None = Position(number, until)
                if until is None:
                    following = Position(number + 1, None) if number + 1 < len(phases) else None
                bounds = statements.Bounds(after, until)
                yield _Step(number, phase, drivers, chosen, bounds, following)
                if following is None:
                    return
                number, after = following
                if until is not None:
                    break


class _Step(NamedTuple):
    number: int
    phase: Phase
    drivers: Sequence[Driver]
    chosen: int
    bounds: statements.Bounds
    # Where the next step begins; None at the end.
    following: Position | None

    @property
    def driver(self) -> Driver:
        return self.drivers[self.chosen]


class SearchStore:
    """Rows are those of `devices`. Devices outside of the fleets `within` do not exist."""

    def __init__(self, engine: AsyncEngine, columns: Sequence[str]) -> None:
        """`engine` connects as mooring_registry; `columns` are those of the rows."""
        self._engine = engine
        self._columns = ", ".join(f"device.{column}" for column in columns)

    async def page(
        self, conditions: Mapping[str, Any], begin: Position, size: int, within: Fleets
    ) -> Page:
        """At most `size` devices, fewer where much has to be read to find them."""
        rows: list[sa.Row[Any]] = []
        ends: list[Position] = []
        following: Position | None = None
        async with self._search(conditions, within) as search:
            async for step in search.steps(begin):
                statement = statements.page(
                    step.chosen,
                    step.driver,
                    step.phase,
                    search.filtered(step.phase),
                    self._columns,
                    step.bounds,
                )
                found = await search.execute(
                    statement, step.drivers, size=size + 1 - len(rows), **step.bounds.parameters
                )
                new = found.all()
                rows += new
                ends += [Position(step.number, row.keys) for row in new]
                following = step.following
                if len(rows) > size:
                    return Page(rows[:size], ends[size - 1])
        return Page(rows, following)

    async def count(self, conditions: Mapping[str, Any], within: Fleets) -> Count:
        """How many devices match, up to `MAX_COUNT`."""
        async with self._search(conditions, within) as search:
            count, following = 0, None
            async for step in search.steps(BEGINNING):
                statement = statements.count(
                    step.chosen, step.driver, step.phase, search.filtered(step.phase), step.bounds
                )
                found = await search.execute(
                    statement, step.drivers, size=MAX_COUNT + 1 - count, **step.bounds.parameters
                )
                count += found.scalar_one()
                following = step.following
                if count > MAX_COUNT:
                    return Count(MAX_COUNT, is_capped=True)
        return Count(count, is_capped=following is not None)

    async def facet(
        self, name: str, conditions: Mapping[str, Any], within: Fleets, share: int = 1
    ) -> Facet:
        """How many devices have which value of the field `name`; its own conditions are ignored.

        `share` is how many facets share the rows that a request reads.
        """
        others = {
            condition: value
            for condition, value in conditions.items()
            if condition not in (name, f"not_{name}")
        }
        async with self._search(others, within) as search:
            rows, few = FACETS_EXACT
            counts, is_complete = await _walked(search, name, (rows // share, few // share))
            if is_complete:
                return _facet(counts, is_cut=False)
            return await _sampled(search, name, counts, FACETS_SAMPLE // share)

    @contextlib.asynccontextmanager
    async def _search(
        self, conditions: Mapping[str, Any], within: Fleets
    ) -> AsyncIterator[_Search]:
        async with writing(self._engine) as connection:
            await connection.execute(sa.text(statements.PLANNED))
            search = _Search(connection, conditions, within)
            await search.prepare()
            yield search


async def _walked(
    search: _Search, name: str, size: tuple[int, int]
) -> tuple[dict[Any, Count], bool]:
    """The counts of values among the first devices by some index; and whether these are all."""
    counts: Counter[Any] = Counter()
    is_complete = True
    for phase in phases_of(search.conditions):
        drivers = search.drivers(phase)
        reaches = await search.reaches(drivers, phase, None, size)
        chosen = farthest(reaches)
        bounds = statements.Bounds(None, reaches[chosen].until)
        is_complete = is_complete and reaches[chosen].is_complete
        statement = statements.grouped(
            chosen, drivers[chosen], phase, search.filtered(phase), VALUES[name][1], bounds
        )
        for row in await search.execute(statement, drivers, **bounds.parameters):
            counts[row.value] += row.found
    found = {value: Count(devices, not is_complete) for value, devices in counts.items()}
    return found, is_complete


async def _sampled(search: _Search, name: str, walked: Mapping[Any, Count], size: int) -> Facet:
    """The counts of the first values, each among its first devices, or as `walked` has them where
    these are more.
    """
    indexed = INDEXED[name]
    values = points_of(name, {}, search.within, None)
    if values is None:
        values = await search.values_of(name, MAX_VALUES + 1)
    is_cut = len(values) > MAX_VALUES
    values = values[:MAX_VALUES]
    # A search is checked as a condition here: the phases are for lists.
    whole = Phase((), "", "true")
    filtered = search.filtered(whole)
    if "search" in search.conditions:
        filtered += f" AND {matching(['search'])}"
    rows = size // max(1, len(values))
    sample = await search.execute(
        statements.per_value(indexed, filtered), (), rows=rows, points=values
    )
    counts = {row.value: Count(row.found, row.is_cut) for row in sample}
    if indexed.missing is not None:
        rest = await search.execute(statements.without_value(indexed, filtered), (), rows=rows)
        row = rest.one()
        counts[indexed.missing] = Count(row.found, row.is_cut)
    for value, count in walked.items():
        if counts.get(value, NO_COUNT).devices < count.devices:
            counts[value] = count
    return _facet(counts, is_cut=is_cut)


def _facet(counts: Mapping[Any, Count], *, is_cut: bool) -> Facet:
    """The most frequent values first. A value of which no device was found is left out: a caller
    that may not see its devices must not see the value.
    """
    frequent = sorted(counts.items(), key=lambda item: (-item[1].devices, item[0]))
    present = [(value, count) for value, count in frequent if count.devices]
    is_hidden = any(not count.devices and count.is_capped for count in counts.values())
    return Facet(present[:MAX_VALUES], is_cut or is_hidden or len(present) > MAX_VALUES)
