"""The series in the database: a row for each fleet and minute, hour and day.

The rows of all fleets together have an empty fleet. A statement adds to the minute, to its hour and
to its day at once, so nothing has to be folded later, and counts that arrive late are in all.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import Pool, fetched, reading, writing
from registry_service.activity.series.counts import Key, Minute
from registry_service.activity.series.latency import BUCKETS
from registry_service.activity.series.ranges import DAY_S, HOUR_S, KEPT_S, MINUTE_S, Range

# The names of the lengths.
STEPS = {MINUTE_S: "minute", HOUR_S: "hour", DAY_S: "day"}
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
    CROSS JOIN (VALUES ('minute', 60), ('hour', 3600), ('day', 86400)) AS steps (step, seconds)
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

# Points and reasons are as of one moment, so that their sums agree.
READ = f"""
SELECT extract(epoch FROM began_at)::bigint / :point_s * :point_s AS began_s,
       sum(new_devices)::bigint AS new_devices, sum(known_devices)::bigint AS known_devices,
       sum(refused)::bigint AS refused, ARRAY[{_summed}]::bigint[] AS latency, NULL AS reason
FROM registration_counts
WHERE step = :step AND fleet_id = ANY (:fleet_ids)
  AND began_at >= to_timestamp(:begin_s) AND began_at < to_timestamp(:end_s)
GROUP BY began_s
UNION ALL
SELECT NULL, NULL, NULL, sum(refusals)::bigint, NULL, reason
FROM ({{spans}}) AS counted GROUP BY reason
"""  # noqa: S608 - of constants
# Each of the spans is found by the index.
OF_SPAN = """
SELECT reason, refusals FROM refusal_counts
WHERE step = :step_{n} AND fleet_id = ANY (:fleet_ids)
  AND began_at >= to_timestamp(:begin_{n}) AND began_at < to_timestamp(:end_{n})
"""

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
        self, span: Range, fleet_ids: Collection[str]
    ) -> tuple[dict[int, sa.Row[Any]], list[tuple[str, int]]]:
        """The sums over these fleets: rows for the points that have any, by their beginning, and
        the refusals of all points by reason, the most first.
        """
        rows = span.rows
        given: dict[str, Any] = {
            "step": STEPS[rows.row_s],
            "begin_s": rows.begin_s,
            "end_s": rows.end_s,
            "point_s": span.point_s,
            "fleet_ids": [*fleet_ids],
        }
        parts = []
        for n, one in enumerate(span.spans):
            parts.append(OF_SPAN.format(n=n))
            given[f"step_{n}"] = STEPS[one.row_s]
            given[f"begin_{n}"], given[f"end_{n}"] = one.begin_s, one.end_s
        statement = sa.text(READ.format(spans=" UNION ALL ".join(parts)))
        async with reading(self._engine) as connection:
            found = (await connection.execute(statement, given)).all()
        points = {row.began_s: row for row in found if row.reason is None}
        reasons = [(row.reason, row.refused) for row in found if row.reason is not None]
        return points, sorted(reasons, key=lambda one: (-one[1], one[0]))

    async def forget(self) -> None:
        """Deletes the buckets that are too old. Raises `Unavailable`."""
        for table in ("registration_counts", "refusal_counts"):
            statement = sa.text(FORGET.format(table=table))
            for row_s, kept_s in KEPT_S.items():
                kept = timedelta(seconds=kept_s)
                given = {"step": STEPS[row_s], "kept": kept, "chunk": CHUNK}
                deleted = CHUNK
                while deleted == CHUNK:
                    async with writing(self._engine) as connection:
                        deleted = (await connection.execute(statement, given)).rowcount
