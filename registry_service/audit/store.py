"""The audit log in the database."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import reading
from registry_service.tables import audit_checks, audit_log, audit_seals

# JSON stays text, because it is passed on unchanged. The column `count` is renamed, because rows
# are tuples, which have a method `count`.
_columns = [
    *(
        column
        for column in audit_log.c
        if column.name not in ("before", "after", "details", "ticket")
    ),
    audit_log.c.count.label("attempts"),
    *(
        sa.cast(column, sa.Text).label(column.name)
        for column in (audit_log.c.before, audit_log.c.after, audit_log.c.details)
    ),
]
_noun = sa.func.split_part(audit_log.c.action, sa.text("'.'"), sa.text("1"))


class AuditStore:
    """Rows come from `audit_log`, with the count as `attempts` and JSON as text."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def lines_before(
        self,
        last: tuple[datetime, int] | None,
        limit: int,
        *,
        equal: Mapping[str, str],
        since: datetime | None,
        until: datetime | None,
        refused_only: bool,
    ) -> Sequence[sa.Row[Any]]:
        """The lines before the line with the time and the id `last`, the newest first. `equal`
        holds the values that columns must have; an action that ends with a full stop matches all
        actions that begin with it.
        """
        query = sa.select(*_columns).limit(limit)
        query = query.order_by(audit_log.c.at.desc(), audit_log.c.id.desc())
        for name, value in equal.items():
            if name == "action" and value.endswith("."):
                query = query.where(_noun == value.removesuffix("."))
            else:
                query = query.where(audit_log.c[name] == value)
        if refused_only:
            query = query.where(audit_log.c.refusal != sa.text("''"))
        if since is not None:
            query = query.where(audit_log.c.at >= since)
        if until is not None:
            query = query.where(audit_log.c.at < until)
        if last is not None:
            at, line_id = last
            query = query.where(sa.tuple_(audit_log.c.at, audit_log.c.id) < sa.tuple_(at, line_id))
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).all()

    async def seals(self) -> tuple[Any, Any]:
        """The last seal, as `id`, `mac` and `sealed_at`, and the last check of the newest seals, a
        row of `audit_checks`; None if there is none.
        """
        columns = (audit_seals.c.id, audit_seals.c.mac, audit_seals.c.sealed_at)
        last = sa.select(*columns).order_by(audit_seals.c.id.desc()).limit(1)
        async with reading(self._engine) as connection:
            return (
                (await connection.execute(last)).one_or_none(),
                (await connection.execute(sa.select(audit_checks))).one_or_none(),
            )
