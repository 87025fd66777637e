"""The states of brokers in the database.

The resolution reads them, and each change is announced. So all brokers are written with one
statement, only those that change, and at most once a second by all processes together.
"""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker_service.health.states import FLAPPING_S, Decision, Now
from chassis.database import reading, take_turns, writing
from domain.pools import State
from domain.turns import PLACEMENT

NOW = sa.text("""
SELECT broker.id, coalesce(now.state, 'unknown') AS state, coalesce(now.reason, '') AS reason,
       coalesce(extract(epoch FROM clock_timestamp() - now.since), 0)::float8 AS age_s,
       coalesce(now.returning_percent, 100)::float8 AS returning_percent,
       coalesce(now.salt, '') AS salt, coalesce(history.faults, 0)::integer AS faults
FROM mqtt_broker_config AS broker
LEFT JOIN broker_states AS now ON now.broker_id = broker.id
LEFT JOIN (
    SELECT broker_id, count(*) AS faults FROM broker_state_history
    WHERE changed_at > clock_timestamp() - make_interval(secs => :flapping_s)
      AND state IN ('degraded', 'down')
    GROUP BY broker_id
) AS history ON history.broker_id = broker.id
WHERE broker.is_active
""")
# The row of health_control is locked until the commit, so that processes write one after another.
WRITE = sa.text("""
WITH paced AS (
    UPDATE health_control SET written_at = clock_timestamp()
    WHERE written_at <= clock_timestamp() - interval '1 second' AND NOT is_frozen
    RETURNING is_frozen
)
INSERT INTO broker_states AS kept (broker_id, state, reason, since, returning_percent, salt)
SELECT broker.id, given.state, given.reason, clock_timestamp(), given.percent, given.salt
FROM unnest(
    CAST(:ids AS integer[]), CAST(:states AS text[]), CAST(:reasons AS text[]),
    CAST(:percents AS float8[]), CAST(:salts AS text[])
) AS given (id, state, reason, percent, salt)
JOIN mqtt_broker_config AS broker ON broker.id = given.id
CROSS JOIN paced
ORDER BY broker.id
ON CONFLICT (broker_id) DO UPDATE
SET state = excluded.state, reason = excluded.reason, salt = excluded.salt,
    returning_percent = excluded.returning_percent,
    since = CASE kept.state WHEN excluded.state THEN kept.since ELSE excluded.since END
RETURNING broker_id
""")
FULL = sa.text("""
SELECT broker.id, counted.is_full
FROM mqtt_broker_config AS broker
LEFT JOIN broker_states AS now ON now.broker_id = broker.id
LEFT JOIN (
    SELECT told_broker_id AS id, sum(devices) AS devices
    FROM (
        SELECT told_broker_id, devices FROM device_counts
        UNION ALL SELECT told_broker_id, devices FROM device_count_changes
    ) AS kinds
    WHERE told_broker_id IN (SELECT id FROM mqtt_broker_config WHERE capacity IS NOT NULL)
    GROUP BY told_broker_id
) AS used ON used.id = broker.id
CROSS JOIN LATERAL (
    SELECT broker.capacity IS NOT NULL AND coalesce(used.devices, 0) >= broker.capacity AS is_full
) AS counted
WHERE counted.is_full <> coalesce(now.is_full, false)
ORDER BY broker.id
""")
WRITE_FULL = sa.text("""
WITH paced AS (
    UPDATE health_control SET written_at = clock_timestamp()
    WHERE written_at <= clock_timestamp() - interval '1 second'
    RETURNING is_frozen
)
INSERT INTO broker_states AS kept (broker_id, is_full)
SELECT broker.id, given.is_full
FROM unnest(CAST(:ids AS integer[]), CAST(:full AS boolean[])) AS given (id, is_full)
JOIN mqtt_broker_config AS broker ON broker.id = given.id
CROSS JOIN paced
ORDER BY broker.id
ON CONFLICT (broker_id) DO UPDATE SET is_full = excluded.is_full
RETURNING broker_id
""")


async def states_now(connection: AsyncConnection) -> dict[int, Now]:
    """The states of the active brokers. `step_age_s` is not stored, and is 0."""
    rows = await connection.execute(NOW, {"flapping_s": FLAPPING_S})
    return {
        row.id: Now(
            State(row.state),
            row.reason,
            row.age_s,
            0.0,
            row.faults,
            row.returning_percent,
            row.salt,
        )
        for row in rows
    }


async def write_states(
    connection: AsyncConnection, decisions: Mapping[int, Decision]
) -> frozenset[int]:
    """Writes the states by broker. Returns the brokers that were written: none if states are frozen
    or were written less than a second ago.
    """
    await take_turns(connection, PLACEMENT)
    values = {
        "ids": list(decisions),
        "states": [decision.state.value for decision in decisions.values()],
        "reasons": [decision.reason for decision in decisions.values()],
        "percents": [decision.returning_percent for decision in decisions.values()],
        "salts": [decision.salt for decision in decisions.values()],
    }
    return frozenset((await connection.execute(WRITE, values)).scalars())


async def write_capacities(engine: AsyncEngine) -> int:
    """Writes which brokers are full, by the counts of devices. Any number of processes may do it.
    Returns how many brokers were written: none if states were written less than a second ago.
    Raises `Unavailable`.
    """
    async with reading(engine) as connection:
        rows = (await connection.execute(FULL)).all()
    if not rows:
        return 0
    values = {"ids": [row.id for row in rows], "full": [row.is_full for row in rows]}
    async with writing(engine) as connection:
        await take_turns(connection, PLACEMENT)
        return len((await connection.execute(WRITE_FULL, values)).all())
