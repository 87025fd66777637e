"""Keeping an actor within fleets: a method that serves restricted tokens asks here whose it is.

`chassis.trust.WithinFleets` is how it states that it does.
"""

from contextvars import ContextVar
from typing import Any, TypeAlias

import sqlalchemy as sa

# Ids of fleets; None stands for all that there are.
Fleets: TypeAlias = frozenset[str] | None

# A query for whatever columns.
Rows: TypeAlias = sa.Select[*tuple[Any, ...]]

# Those that the actor of the call that is being served is restricted to.
fleets: ContextVar[Fleets] = ContextVar("fleets", default=None)


def is_within(fleet_id: sa.ColumnElement[str], within: Fleets) -> sa.ColumnElement[bool]:
    """Whether a row is of one of the fleets, by the column that holds its own."""
    return sa.true() if within is None else fleet_id == sa.any_(_array_of(within))


def page_within(
    query: Rows, fleet_id: sa.Column[str], key: sa.Column[Any], limit: int, within: Fleets
) -> Rows:
    """The first rows of `query` in the order of `key`, of the fleets alone.

    The first of each fleet come from its index (`fleet_id`, `key`): to look through the rows of
    everybody for those of a small customer takes as long as there are others.
    """
    page = query.order_by(key).limit(limit)
    if within is None:
        return page
    fleet = sa.func.unnest(_array_of(within)).table_valued("id", name="fleet").render_derived()
    first = page.where(fleet_id == fleet.c.id).lateral("first")
    return (
        sa.select(first).join_from(fleet, first, sa.true()).order_by(first.c[key.name]).limit(limit)
    )


def _array_of(within: frozenset[str]) -> sa.ColumnElement[Any]:
    return sa.cast(sorted(within), sa.ARRAY(sa.Text))
