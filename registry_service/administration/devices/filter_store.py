"""A filter of devices in a transaction: which index is read, and how far."""

import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

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
)
from registry_service.administration.devices.orders import Phase, Position, phases_of
from registry_service.device_filter import NOT
from registry_service.tables import provisioning_keys

# How many rows an index reads in each step of a request, and how many if they are scattered over
# the table. The first step suffices where many devices match; the second is for filters that match
# few. It is more than twice `MAX_COUNT`, so that two values of a field can be counted exactly.
STEPS = ((1_000, 200), (24_000, 2_000))
# If a field has too many values to read each, it is not asked for them again for so long. Meanwhile
# its index is read for single values only, which finds the same devices.
CROWDED_S = 60.0


@dataclass
class Search:
    """A filter in a transaction."""

    connection: AsyncConnection
    conditions: Mapping[str, Any]
    within: Fleets
    # Until when (of the monotonic clock) fields count as having too many values to read each.
    crowded: dict[str, float]
    values: dict[str, Sequence[Any]] = field(default_factory=dict)
    # What follows from the conditions.
    implied: dict[str, Any] = field(default_factory=dict)
    # The indexes, in another order than a phase, that are known to find few enough devices.
    complete: list[Driver] = field(default_factory=list)

    async def prepare(self) -> None:
        """Reads the values of fields of which some are excluded, and the fleet of the key."""
        if key_id := self.conditions.get("provisioned_by_key_id"):
            query = sa.select(provisioning_keys.c.fleet_id).where(
                provisioning_keys.c.id == uuid.UUID(key_id)
            )
            # All devices of a key are of its fleet; an unknown key has no devices.
            self.implied["fleet_id"] = await self.connection.scalar(query) or ""
        for name in enumerated(self.conditions, self.within):
            if self.crowded.get(name, 0.0) > time.monotonic():
                continue
            statement = statements.values_of(INDEXED[name])
            found = (await self.execute(statement, size=MAX_POINTS + 1)).scalars().all()
            if len(found) <= MAX_POINTS:
                self.values[name] = found
            else:
                self.crowded[name] = time.monotonic() + CROWDED_S

    def without(self, name: str) -> "Search":
        """The search without the conditions on a field."""
        return replace(
            self,
            conditions={
                condition: value
                for condition, value in self.conditions.items()
                if condition not in (name, f"{NOT}{name}")
            },
            values={other: found for other, found in self.values.items() if other != name},
        )

    def filtered(self, phase: Phase) -> str:
        """The conditions, as far as the phase does not say them."""
        return statements.filtering(phase, self.conditions, self.within)

    def drivers(self, phase: Phase) -> list[Driver]:
        """The indexes that find the devices of a phase."""
        return drivers_of(phase, {**self.implied, **self.conditions}, self.within, self.values)

    async def execute(
        self, statement: str, drivers: Sequence[Driver] = (), **parameters: Any
    ) -> sa.CursorResult[Any]:
        """Runs a statement with the values of the conditions, of `drivers` and of `parameters`."""
        text, names = _prepared(statement)
        given = {
            **self.conditions,
            "within": None if self.within is None else sorted(self.within),
            **{f"points_{number}": driver.points for number, driver in enumerate(drivers)},
            **parameters,
        }
        return await self.connection.execute(text, {name: given[name] for name in names})

    async def reaches(
        self,
        drivers: Sequence[Driver],
        phase: Phase,
        after: Sequence[Any] | None,
        size: tuple[int, int],
    ) -> list[Reach]:
        """How far each index comes from the position `after` with so many rows."""
        bounds = statements.Bounds(after, None)
        statement = statements.probe(
            drivers, phase, known=self.complete, is_begun=after is not None
        )
        rows, few = size
        found = await self.execute(statement, drivers, rows=rows, few=few, **bounds.parameters)
        reaches = [
            Reach.of(driver, phase, keys) for driver, keys in zip(drivers, found.one(), strict=True)
        ]
        # One that finds few devices does so in every phase, wherever it begins.
        self.complete += [
            driver
            for driver, reach in zip(drivers, reaches, strict=True)
            if reach.is_complete and driver.keys != phase.keys and driver not in self.complete
        ]
        return reaches

    async def steps(self, begin: Position) -> AsyncIterator["Step"]:
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
                yield Step(number, phase, drivers, chosen, bounds, following)
                if following is None:
                    return
                number, after = following
                if until is not None:
                    break


# Statements differ with the names of conditions and hardly with values. Parsing one takes as long
# as running some.
@lru_cache(maxsize=512)
def _prepared(statement: str) -> tuple[sa.TextClause, tuple[str, ...]]:
    """The statement, and the names of its parameters."""
    text = sa.text(statement)
    return text, tuple(text.compile().params)


class Step(NamedTuple):
    """What to read next: the devices of a phase by one of the drivers."""

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
