"""The fleets to which the token of a call is restricted, and conditions on rows for them.

Methods with the policy `chassis.trust.WithinFleets` use it.
"""

from contextvars import ContextVar
from typing import Any, TypeAlias

import sqlalchemy as sa

# Ids of fleets; None means all fleets.
Fleets: TypeAlias = frozenset[str] | None

# A query of any columns.
Rows: TypeAlias = sa.Select[*tuple[Any, ...]]

# The fleets to which the actor of the current call is restricted.
fleets: ContextVar[Fleets] = ContextVar("fleets", default=None)


def is_within(fleet_id: sa.ColumnElement[str], within: Fleets) -> sa.ColumnElement[bool]:
    """Whether a row belongs to one of the fleets, by its column `fleet_id`."""
    return sa.true() if within is None else fleet_id == sa.any_(_array_of(within))


def page_within(
    query: Rows, fleet_id: sa.Column[str], key: sa.Column[Any], limit: int, within: Fleets
) -> Rows:
    """The first rows of `query` in the order of `key`, of these fleets only.

    The first rows of each fleet come from the index (`fleet_id`, `key`). Filtering the rows of all
    fleets would take long for a customer with few devices.
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
