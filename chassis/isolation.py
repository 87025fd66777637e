"""Keeping an actor within fleets: a method that serves restricted tokens asks here for whom it is.

`chassis.trust.WithinFleets` is how it states that it does.
"""

from contextvars import ContextVar
from typing import Any, TypeAlias

import sqlalchemy as sa

# Ids of fleets; None stands for all that there are.
Fleets: TypeAlias = frozenset[str] | None

# Those of the call that is being served.
fleets: ContextVar[Fleets] = ContextVar("fleets", default=None)


def array_of(within: frozenset[str]) -> sa.ColumnElement[Any]:
    """The fleets as PostgreSQL has them."""
    return sa.cast(sorted(within), sa.ARRAY(sa.Text))


def is_within(fleet_id: sa.ColumnElement[str], within: Fleets) -> sa.ColumnElement[bool]:
    """Whether a row is of one of the fleets, by the column that holds its own."""
    return sa.true() if within is None else fleet_id == sa.any_(array_of(within))
