"""Finds the devices of a filter: pages, counts and counts by value, each with bounded work."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import writing
from chassis.isolation import Fleets
from registry_service.administration.devices import facets
from registry_service.administration.devices import search_statements as statements
from registry_service.administration.devices.facets import Count, Facet
from registry_service.administration.devices.filter_store import Search
from registry_service.administration.devices.orders import BEGINNING, Position

MAX_COUNT = 10_000


class Page(NamedTuple):
    """Rows, and where the next page begins; None at the end of the list."""

    rows: Sequence[sa.Row[Any]]
    following: Position | None


class SearchStore:
    """Rows are those of `devices`. Devices outside of the fleets `within` do not exist."""

    def __init__(self, engine: AsyncEngine, columns: Sequence[str]) -> None:
        """`engine` connects as mooring_registry; `columns` are those of the rows."""
        self._engine = engine
        self._columns = ", ".join(f"device.{column}" for column in columns)
        self._crowded: dict[str, float] = {}

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

    async def facets(
        self, names: Sequence[str], conditions: Mapping[str, Any], within: Fleets
    ) -> list[Facet]:
        """For each field of `names`, how many devices have which value."""
        if not names:
            return []
        async with self._search(conditions, within) as search:
            return await facets.counted(search, names)

    @contextlib.asynccontextmanager
    async def _search(self, conditions: Mapping[str, Any], within: Fleets) -> AsyncIterator[Search]:
        async with writing(self._engine) as connection:
            await connection.execute(sa.text(statements.PLANNED))
            search = Search(connection, conditions, within, self._crowded)
            await search.prepare()
            yield search
