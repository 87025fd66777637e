"""Reports of processes in the database. The table belongs to the registry; a row may only be
written by the role that made it.
"""

from datetime import datetime
from functools import partial

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import writing
from chassis.loops import LoopState
from chassis.reporting import Report, Write

# The columns that are written.
process_table = sa.table(
    "processes",
    *map(
        sa.column,
        ("id", "process", "host", "pid", "version", "started_at", "seen_at", "ended_at"),
    ),
    sa.column("is_ready", sa.Boolean),
    sa.column("checks", JSONB),
    sa.column("loops", JSONB),
    sa.column("configuration", JSONB),
)


def writer(engine: AsyncEngine) -> Write:
    """Writes reports with the connections of a process."""
    return partial(write, engine)


async def write(engine: AsyncEngine, report: Report) -> None:
    """Adds the process, or replaces its last report. Another process with the same id keeps its
    row. Raises `Unavailable`, or the driver's error if there is no such table.
    """
    now = sa.func.clock_timestamp()
    state = {
        "seen_at": now,
        "ended_at": now if report.has_ended else sa.null(),
        "is_ready": report.is_ready,
        "checks": dict(report.checks),
        "loops": {name: _json(loop) for name, loop in report.loops.items()},
    }
    made = insert(process_table).values(
        id=report.id,
        process=report.process,
        host=report.host,
        pid=report.pid,
        version=report.version,
        started_at=report.started_at,
        configuration=dict(report.configuration),
        **state,
    )
    statement = made.on_conflict_do_update(
        index_elements=["id"],
        set_=state,
        where=sa.and_(
            process_table.c.process == report.process,
            process_table.c.started_at == report.started_at,
        ),
    )
    async with writing(engine) as connection:
        await connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
        await connection.execute(statement)


def _json(loop: LoopState) -> dict[str, str | None]:
    return {
        "problem": loop.problem,
        "succeeded_at": _text(loop.succeeded_at),
        "failing_since": _text(loop.failing_since),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
