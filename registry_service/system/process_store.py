"""The reports of processes in the database."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import reading, writing
from registry_service.tables import leases, processes

# A process that has not reported for this time is lost. It reports every ten seconds.
LOST_AFTER = timedelta(seconds=30)
# How long processes that ended or were lost are listed, and how many of each name: a process that
# ends right after each start adds one at each.
KEPT = timedelta(days=1)
KEPT_OF_A_NAME = 50

_now = sa.func.clock_timestamp()
_is_lost = sa.and_(processes.c.ended_at.is_(None), processes.c.seen_at < _now - LOST_AFTER)
_is_gone = sa.or_(processes.c.ended_at.is_not(None), processes.c.seen_at < _now - LOST_AFTER)
_leases = (
    sa.select(sa.func.coalesce(sa.func.array_agg(leases.c.name), sa.text("'{}'")))
    .where(
        leases.c.holder == processes.c.host + "/" + sa.cast(processes.c.pid, sa.Text),
        leases.c.expires_at > _now,
    )
    .scalar_subquery()
)


class ProcessStore:
    """Connects as mooring_registry."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def processes(self) -> Sequence[sa.Row[Any]]:
        """All processes, in the order of their names and ids. Each row has `is_lost`, and `leases`:
        the names of the leases that the process holds.
        """
        query = sa.select(processes, _is_lost.label("is_lost"), _leases.label("leases")).order_by(
            processes.c.process, processes.c.id
        )
        async with reading(self._engine) as connection:
            return (await connection.execute(query)).all()

    async def forget(self) -> None:
        """Deletes old reports of processes that ended or were lost. Raises `Unavailable`."""
        rank = sa.func.row_number().over(
            partition_by=processes.c.process, order_by=processes.c.seen_at.desc()
        )
        gone = sa.select(processes.c.id, processes.c.seen_at, rank.label("rank")).where(_is_gone)
        ranked = gone.subquery()
        old = sa.or_(ranked.c.rank > KEPT_OF_A_NAME, ranked.c.seen_at < _now - KEPT)
        chosen = sa.select(ranked.c.id).where(old)
        async with writing(self._engine) as connection:
            await connection.execute(sa.delete(processes).where(processes.c.id.in_(chosen)))
