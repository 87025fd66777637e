"""Which kinds of things changed, in the database. Triggers note a kind in the transaction that
changes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import Pool, fetched, text_array, writing
from registry_service.system.cursor import Cursor
from registry_service.system.kinds import NOTED
from registry_service.tables import kind_changes, kind_changes_kept

# A cursor is good for at least this time.
KEPT = timedelta(minutes=10)

# One row of the index is read for each kind and each transaction that was open, however many
# changes there were. Rows of later transactions than any can only have come with a dump of another
# server.
SINCE = """
SELECT pg_current_snapshot()::text,
       (SELECT system_identifier FROM pg_control_system())::text
       || '-' || (SELECT oid FROM pg_database WHERE datname = current_database())
       || '-' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
       kept_from,
       ARRAY(
           SELECT known.kind FROM unnest(%s::text[]) AS known (kind)
           WHERE (
               SELECT changed.xid FROM kind_changes AS changed
               WHERE changed.kind = known.kind
                 AND changed.xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
               ORDER BY changed.xid DESC LIMIT 1
           ) >= %s::bigint
           OR (
               SELECT changed.xid FROM kind_changes AS changed
               WHERE changed.kind = known.kind AND changed.xid = ANY (%s::bigint[]) LIMIT 1
           ) IS NOT NULL
       )
FROM kind_changes_kept
"""
KINDS = text_array(NOTED)
MAX_XID = 2**63 - 1
_FIRST_OPEN = sa.text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
_NEXT = sa.text("pg_snapshot_xmax(pg_current_snapshot())::text::bigint")


@dataclass(frozen=True, slots=True)
class Changed:
    """What changed between two cursors."""

    cursor: Cursor
    # As the database notes them.
    kinds: Sequence[str]
    # It is not known what changed.
    is_everything: bool


class ChangeStore:
    """Connects as mooring_registry."""

    def __init__(self, pool: Pool) -> None:
        """`pool` is for hot paths."""
        self._pool = pool

    async def since(self, cursor: Cursor | None) -> Changed:
        """The kinds whose changes became visible after `cursor`; none without a cursor. Raises
        `Unavailable`.
        """
        following, between = (MAX_XID, ()) if cursor is None else (cursor.next, cursor.open)
        rows = await fetched(self._pool, SINCE, (KINDS, following, list(between)))
        [(snapshot, epoch, kept_from, kinds)] = rows
        now = Cursor.of(epoch, snapshot)
        is_known = cursor is None or cursor.leads_to(now, kept_from)
        return Changed(now, kinds if is_known else (), not is_known)


class OldChanges:
    """Deletes what no cursor needs any more. Connects as mooring_registry."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def forget(self) -> None:
        """Deletes the rows of transactions that had ended before KEPT. Raises `Unavailable`."""
        kept = kind_changes_kept
        # If the numbers of transactions went back, this is a dump of another server.
        is_foreign = kept.c.next_kept_from > _NEXT
        move = (
            sa.update(kept)
            .values(
                kept_from=sa.case((is_foreign, _FIRST_OPEN), else_=kept.c.next_kept_from),
                next_kept_from=_FIRST_OPEN,
                noted_at=sa.func.clock_timestamp(),
            )
            .where(sa.or_(kept.c.noted_at < sa.func.clock_timestamp() - KEPT, is_foreign))
            .returning(kept.c.kept_from)
        )
        async with writing(self._engine) as connection:
            kept_from = await connection.scalar(move)
            if kept_from is not None:
                is_old = sa.or_(kind_changes.c.xid < kept_from, kind_changes.c.xid >= _NEXT)
                await connection.execute(sa.delete(kind_changes).where(is_old))
