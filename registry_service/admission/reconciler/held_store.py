"""The clients that managed brokers hold, as recorded in the database (`driven_clients`)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import reading, writing

# Announces that a broker holds more clients, or that it has failed.
HELD_CHANNEL = "mooring_held"
NOTIFY_HELD = sa.text(f"SELECT pg_notify('{HELD_CHANNEL}', '')")
# Commits do not wait for the disk. If the database loses the last ones, the next listing of brokers
# restores these rows.
ASYNCHRONOUSLY = sa.text("SELECT set_config('synchronous_commit', 'off', true)")

# Replaces the recorded clients of a broker. Rows that stay are neither locked nor written.
FOUND = sa.text("""
WITH given AS (
    SELECT * FROM unnest(CAST(:usernames AS text[]), CAST(:fingerprints AS text[]))
        AS given (username, fingerprint)
), gone AS (
    DELETE FROM driven_clients AS client
    WHERE broker_id = :broker_id
      AND NOT EXISTS (SELECT FROM given WHERE given.username = client.username)
    RETURNING 1
), come AS (
    INSERT INTO driven_clients (broker_id, username, fingerprint)
    SELECT :broker_id, given.username, given.fingerprint
    FROM given LEFT JOIN driven_clients AS known
        ON known.broker_id = :broker_id AND known.username = given.username
    WHERE known.fingerprint IS DISTINCT FROM given.fingerprint
    ON CONFLICT (broker_id, username) DO UPDATE SET fingerprint = excluded.fingerprint
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM come)
""")
ADDED = sa.text("""
INSERT INTO driven_clients (broker_id, username, fingerprint)
SELECT :broker_id, username, fingerprint
FROM unnest(CAST(:usernames AS text[]), CAST(:fingerprints AS text[]))
    AS given (username, fingerprint)
ON CONFLICT (broker_id, username) DO UPDATE SET fingerprint = excluded.fingerprint
""")
PROGRESS = sa.text("""
INSERT INTO driven_brokers (broker_id, looked_at, progressed_at)
VALUES (:broker_id, now(), clock_timestamp())
ON CONFLICT (broker_id) DO UPDATE SET progressed_at = excluded.progressed_at
""")
# The broker can be reached: its problem concerns only some clients.
REACHED = sa.text("""
UPDATE driven_brokers SET is_partial = true
WHERE broker_id = :broker_id AND problem <> '' AND NOT is_partial
""")

# The states, in the order of the request. A broker without a list of clients need not hold any; a
# broker that is not active is not managed.
LOOK = sa.text("""
SELECT broker.id IS NULL OR broker.management <> 'mosquitto' OR client.username IS NOT NULL
           AS is_held,
       broker.is_active AND lease.is_held AND (
           coalesce(state.problem, '') = '' OR state.is_partial
       ) AS is_driven,
       CAST(extract(epoch FROM clock_timestamp() - state.progressed_at) AS double precision)
           AS progress_age_s
FROM unnest(CAST(:broker_ids AS integer[]), CAST(:usernames AS text[]),
            CAST(:fingerprints AS text[]))
    WITH ORDINALITY AS given (broker_id, username, fingerprint, place)
CROSS JOIN (
    SELECT EXISTS (
        SELECT FROM leases WHERE name = 'enforcement' AND expires_at > clock_timestamp()
    ) AS is_held
) AS lease
LEFT JOIN mqtt_broker_config AS broker ON broker.id = given.broker_id
LEFT JOIN driven_brokers AS state ON state.broker_id = given.broker_id
LEFT JOIN driven_clients AS client ON client.broker_id = given.broker_id
    AND client.username = given.username AND client.fingerprint = given.fingerprint
ORDER BY place
""")


class Awaited(NamedTuple):
    """A device, and the fingerprint under which a broker must hold it."""

    broker_id: int
    username: str
    fingerprint: str


class Look(NamedTuple):
    """Whether a broker holds one client. `is_driven` is false if waiting is useless, because no
    process manages the broker or the broker fails.

    `progress_age_s`: how long ago the broker last carried out commands.
    """

    is_held: bool
    is_driven: bool
    progress_age_s: float | None


class HeldStore:
    """Connects as mooring_registry. Every method raises `Unavailable`."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Has no state."""
        self._engine = engine

    async def found(
        self, broker_id: int, held: Mapping[str, str], *, takes_clients: bool = True
    ) -> None:
        """Records a listing: the broker holds these clients and no others. `held` maps usernames to
        fingerprints. `takes_clients`: the broker can hold more clients.
        """
        values = _values(broker_id, held)
        async with writing(self._engine) as connection:
            await connection.execute(ASYNCHRONOUSLY)
            changes = await connection.scalar(FOUND, values)
            if takes_clients:
                await connection.execute(REACHED, {"broker_id": broker_id})
            if changes:
                await connection.execute(PROGRESS, {"broker_id": broker_id})
                await connection.execute(NOTIFY_HELD)

    async def applied(self, broker_id: int, held: Mapping[str, str]) -> None:
        """Records that the broker has carried out commands, and now holds these clients too."""
        values = _values(broker_id, held)
        async with writing(self._engine) as connection:
            await connection.execute(ASYNCHRONOUSLY)
            if held:
                await connection.execute(ADDED, values)
            await connection.execute(PROGRESS, {"broker_id": broker_id})
            await connection.execute(NOTIFY_HELD)

    async def look(self, awaited: Sequence[Awaited]) -> list[Look]:
        """The state of each device, in order."""
        values = {
            "broker_ids": [one.broker_id for one in awaited],
            "usernames": [one.username for one in awaited],
            "fingerprints": [one.fingerprint for one in awaited],
        }
        async with reading(self._engine) as connection:
            return [Look(*row) for row in await connection.execute(LOOK, values)]


def _values(broker_id: int, held: Mapping[str, str]) -> dict[str, object]:
    # In one order, so that writers cannot deadlock.
    usernames = sorted(held)
    return {
        "broker_id": broker_id,
        "usernames": usernames,
        "fingerprints": [held[name] for name in usernames],
    }
