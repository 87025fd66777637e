"""The series in the database: a row for each fleet and minute, and for each fleet and hour.

The rows of all fleets together have an empty fleet. A statement adds to the minute and to its hour
at once, so nothing has to be folded later, and counts that arrive late are in both.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import Pool, fetched, reading, writing
from registry_service.activity.series.counts import MINUTE_S, Key, Minute
from registry_service.activity.series.latency import BUCKETS

# How long buckets are kept, by their length.
KEPT = {"minute": timedelta(days=2), "hour": timedelta(days=90)}
# This many rows are deleted in some tenths of a second.
CHUNK = 5_000

ALL_BUCKETS = range(1, BUCKETS + 1)
_summed = ", ".join(f"sum(latency[{index}])" for index in ALL_BUCKETS)
_added = ", ".join(f"known.latency[{index}] + excluded.latency[{index}]" for index in ALL_BUCKETS)

# Rows are inserted in the order of the key, so that replicas cannot deadlock.
ADD = f"""
WITH given AS MATERIALIZED (
    SELECT step, to_timestamp(at / seconds * seconds) AS began_at, given.*
    FROM json_to_recordset(%s::json) AS given (
        at bigint, fleet_id text, new_devices bigint, known_devices bigint, refused bigint,
        latency bigint[], reasons json
    )
    CROSS JOIN (VALUES ('minute', 60), ('hour', 3600)) AS steps (step, seconds)
), registered AS (
    INSERT INTO registration_counts AS known
        (step, fleet_id, began_at, new_devices, known_devices, refused, latency)
    SELECT step, fleet_id, began_at, sum(new_devices), sum(known_devices), sum(refused),
           ARRAY[{_summed}]
    FROM given
    GROUP BY step, fleet_id, began_at
    ORDER BY step COLLATE "C", fleet_id COLLATE "C", began_at
    ON CONFLICT (step, fleet_id, began_at) DO UPDATE
    SET new_devices = known.new_devices + excluded.new_devices,
        known_devices = known.known_devices + excluded.known_devices,
        refused = known.refused + excluded.refused,
        latency = ARRAY[{_added}]
)
INSERT INTO refusal_counts AS known (step, fleet_id, began_at, reason, refusals)
SELECT step, fleet_id, began_at, reason, sum(refusals::bigint)
FROM given CROSS JOIN json_each_text(reasons) AS refused (reason, refusals)
GROUP BY step, fleet_id, began_at, reason
ORDER BY step COLLATE "C", fleet_id COLLATE "C", began_at, reason COLLATE "C"
ON CONFLICT (step, fleet_id, began_at, reason) DO UPDATE
SET refusals = known.refusals + excluded.refusals
"""  # noqa: S608 - of constants

WITHIN = """
    step = :step AND fleet_id = ANY (:fleet_ids) AND began_at >= :since AND began_at < :until
"""
# The rows of one fleet, or of all together, are not summed up.
POINTS = f"""
SELECT began_at, new_devices, known_devices, refused, latency
FROM registration_counts WHERE {WITHIN} ORDER BY began_at
"""  # noqa: S608 - of constants
SUMMED_POINTS = f"""
SELECT began_at, sum(new_devices)::bigint AS new_devices,
       sum(known_devices)::bigint AS known_devices, sum(refused)::bigint AS refused,
       ARRAY[{_summed}]::bigint[] AS latency
FROM registration_counts WHERE {WITHIN} GROUP BY began_at ORDER BY began_at
"""  # noqa: S608 - likewise
REASONS = f"""
SELECT reason, sum(refusals)::bigint AS refusals
FROM refusal_counts WHERE {WITHIN} GROUP BY reason ORDER BY refusals DESC, reason
"""  # noqa: S608 - likewise

FORGET = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {table} WHERE step = :step AND began_at < now() - :kept
    LIMIT :chunk FOR UPDATE SKIP LOCKED
))
"""


async def add(pool: Pool, minutes: Mapping[Key, Minute]) -> None:
    """Adds counts to the database; `pool` connects as mooring_registry. Raises `Unavailable`."""
    rows = [
        {
            "at": minute * MINUTE_S,
            "fleet_id": fleet_id,
            "new_devices": counts.new_devices,
            "known_devices": counts.known_devices,
            "refused": counts.reasons.total(),
            "latency": counts.latency,
            "reasons": counts.reasons,
        }
        for (minute, fleet_id), counts in minutes.items()
    ]
    await fetched(pool, ADD, [msgspec.json.encode(rows).decode()])


class SeriesStore:
    """Reads the series, and deletes what is too old."""

    def __init__(self, engine: AsyncEngine) -> None:
        """`engine` connects as mooring_registry."""
        self._engine = engine

    async def read(
        self, step: str, fleet_ids: Collection[str], since: datetime, until: datetime
    ) -> tuple[Sequence[sa.Row[Any]], Sequence[sa.Row[Any]]]:
        """The rows of `registration_counts` that begin in [`since`, `until`), summed up over the
        fleets, in the order of time; and the refusals in that time by reason, the most first.
        """
        given = {"step": step, "fleet_ids": [*fleet_ids], "since": since, "until": until}
        points = sa.text(POINTS if len(fleet_ids) == 1 else SUMMED_POINTS)
        async with reading(self._engine) as connection:
            found = (await connection.execute(points, given)).all()
            return found, (await connection.execute(sa.text(REASONS), given)).all()

    async def forget(self) -> None:
        """Deletes the buckets that are too old. Raises `Unavailable`."""
        for table in ("registration_counts", "refusal_counts"):
            statement = sa.text(FORGET.format(table=table))
            for step, kept in KEPT.items():
                given = {"step": step, "kept": kept, "chunk": CHUNK}
                deleted = CHUNK
                while deleted == CHUNK:
                    async with writing(self._engine) as connection:
                        deleted = (await connection.execute(statement, given)).rowcount
