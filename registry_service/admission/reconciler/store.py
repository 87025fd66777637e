"""The clients of managed brokers, and the sessions to end, from the database."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import Pool, fetched, reading, writing
from chassis.leases import Lease
from registry_service.admission.reconciler.held_store import NOTIFY_HELD
from registry_service.errors import BrokerNotFound
from registry_service.tables import driven_brokers, revocations

LEASE = "enforcement"
# Wakes the process that manages brokers.
RECONCILER_CHANNEL = "mooring_driving"
# A lost notification does no harm, because the process also reads changes without one.
WAKE = f"""
SELECT set_config('synchronous_commit', 'off', true), pg_notify('{RECONCILER_CHANNEL}', '')
"""
KEPT = "7 days"
AT_ONCE = 500

# The devices whose last answer named the broker, and imported devices that have not registered and
# whose pin or fleet names it. The counts of devices narrow the search, so that no index on
# `told_broker_ids` is needed: a fallback shares a pool with the first broker of an answer, or is
# its backup. Returns at most `most` devices and one more, which shows that there are too many.
# Devices that the broker holds already (`there`) come first and are all returned, because a device
# that is left out would be removed from the broker; devices for which it is a mere fallback come
# last.
WANTED = sa.text("""
WITH first AS MATERIALIZED (
    SELECT CAST(:broker_id AS integer) AS id
    UNION SELECT other.broker_id FROM pool_members AS own JOIN pool_members AS other USING (pool_id)
    WHERE own.broker_id = :broker_id
    UNION SELECT id FROM mqtt_broker_config WHERE backup_broker_id = :broker_id
), kinds AS MATERIALIZED (
    SELECT fleet_id, mqtt_broker_id FROM device_counts
    WHERE told_broker_id IN (SELECT id FROM first)
    UNION SELECT fleet_id, mqtt_broker_id FROM device_count_changes
    WHERE told_broker_id IN (SELECT id FROM first)
), told AS (
    SELECT device.id FROM kinds JOIN devices AS device
        ON device.mqtt_broker_id = kinds.mqtt_broker_id
    WHERE kinds.mqtt_broker_id <> 0 AND device.provisioned_by_key_id IS NOT NULL
      AND device.told_broker_ids @> ARRAY[CAST(:broker_id AS integer)]
    UNION
    SELECT device.id FROM kinds JOIN devices AS device
        ON device.fleet_id = kinds.fleet_id AND device.mqtt_broker_id IS NULL
    WHERE kinds.mqtt_broker_id = 0 AND device.provisioned_by_key_id IS NOT NULL
      AND device.told_broker_ids @> ARRAY[CAST(:broker_id AS integer)]
    UNION
    SELECT device.id FROM devices AS device JOIN fleets AS fleet ON fleet.id = device.fleet_id
    WHERE device.provisioned_by_key_id IS NULL
      AND coalesce(device.mqtt_broker_id, fleet.mqtt_broker_id) = :broker_id
)
SELECT device.mqtt_username AS username, device.uuid, device.credential_salt AS salt,
       device.credential_key_id AS key_id, device.mqtt_password_hash AS hash,
       device.password_algorithm AS algorithm
FROM told JOIN devices AS device USING (id) JOIN fleets AS fleet ON fleet.id = device.fleet_id
LEFT JOIN unnest(CAST(:there AS text[])) AS there (username)
    ON there.username = device.mqtt_username
WHERE device.is_active AND fleet.is_active AND device.password_algorithm <> 'none'
ORDER BY there.username IS NULL, device.told_broker_ids[1] IS DISTINCT FROM :broker_id, device.id
LIMIT greatest(:most, cardinality(CAST(:there AS text[]))) + 1
""")
# Which of the clients that would be removed from a broker are known not to belong there any more. A
# missing row does not prove that, because an empty database looks the same. Nor is a device
# returned whose own row names the broker: then the counts are wrong, or it was moved back
# meanwhile.
ACCOUNTED_FOR = sa.text(f"""
WITH named AS (
    SELECT device.mqtt_username AS username,
           device.is_active AND fleet.is_active AND device.password_algorithm <> 'none'
           AND CASE WHEN device.provisioned_by_key_id IS NULL
               THEN coalesce(device.mqtt_broker_id, fleet.mqtt_broker_id) IS NOT DISTINCT FROM
                    :broker_id
               ELSE device.told_broker_ids @> ARRAY[CAST(:broker_id AS integer)]
           END AS belongs
    FROM devices AS device JOIN fleets AS fleet ON fleet.id = device.fleet_id
    WHERE device.uuid = ANY (:uuids)
       OR device.mqtt_username = ANY (:usernames) AND device.provisioned_by_key_id IS NULL
), gone AS (
    SELECT username FROM named WHERE NOT belongs
    UNION SELECT username FROM revocations
    WHERE broker_id = :broker_id AND username = ANY (:usernames)
      AND asked_at > now() - interval '{KEPT}'
)
SELECT username FROM gone EXCEPT SELECT username FROM named WHERE belongs
""")  # noqa: S608 - put together from what is above

# The first transaction that has not ended, and whether any access has changed since the last one.
CHANGES = sa.text("""
SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS horizon,
       EXISTS (SELECT FROM access_changes WHERE xact >= :horizon) AS has_changes
""")

DUE = sa.text("""
SELECT id, username, reason FROM revocations
WHERE broker_id = :broker_id AND done_at IS NULL ORDER BY id LIMIT :at_once
""")
# The revocations that were done at least `age_s` ago, from a given one on, at first within
# `within_s`.
DONE = sa.text("""
SELECT done_at, id, username FROM revocations
WHERE broker_id = :broker_id AND done_at <= now() - make_interval(secs => :age_s)
  AND (done_at, id) >= (
      coalesce(CAST(:since AS timestamptz), now() - make_interval(secs => :within_s)), :since_id
  )
ORDER BY done_at, id LIMIT :at_once
""")
# Uses the index of done revocations.
PRUNE = sa.text(f"""
DELETE FROM revocations WHERE broker_id = :broker_id AND done_at < now() - interval '{KEPT}'
""")  # noqa: S608 - likewise

STATE = sa.text(f"""
SELECT broker.id AS broker_id, broker.name, broker.management, broker.is_active,
       state.looked_at, state.clients, state.in_step_at, state.problem,
       EXISTS (
           SELECT FROM leases WHERE name = '{LEASE}' AND expires_at > clock_timestamp()
       ) AS is_anybody_driving,
       (SELECT count(*) FROM revocations
        WHERE broker_id = :broker_id AND done_at IS NULL) AS pending,
       timed.revocations, timed.median_s, timed.slowest_s, timed.last_asked_at, timed.last_took_s
FROM mqtt_broker_config AS broker
LEFT JOIN driven_brokers AS state ON state.broker_id = broker.id
CROSS JOIN LATERAL (
    SELECT count(*) AS revocations,
           percentile_disc(0.5) WITHIN GROUP (ORDER BY took_s) AS median_s,
           max(took_s) AS slowest_s,
           (array_agg(asked_at ORDER BY done_at DESC, id DESC))[1] AS last_asked_at,
           (array_agg(took_s ORDER BY done_at DESC, id DESC))[1] AS last_took_s
    FROM (
        SELECT id, asked_at, done_at,
               CAST(extract(epoch FROM done_at - asked_at) AS double precision) AS took_s
        FROM revocations WHERE broker_id = :broker_id AND done_at IS NOT NULL
        ORDER BY done_at DESC LIMIT 1000
    ) AS done
) AS timed
WHERE broker.id = :broker_id
""")  # noqa: S608 - likewise
# The state of managed brokers, without the times of revocations.
STATES = sa.text(f"""
WITH driver AS (
    SELECT EXISTS (
        SELECT FROM leases WHERE name = '{LEASE}' AND expires_at > clock_timestamp()
    ) AS is_there
)
SELECT broker.id AS broker_id, broker.name, broker.management, broker.is_active,
       state.looked_at, state.clients, state.in_step_at, state.problem,
       driver.is_there AS is_anybody_driving,
       (SELECT count(*) FROM revocations
        WHERE broker_id = broker.id AND done_at IS NULL) AS pending
FROM mqtt_broker_config AS broker CROSS JOIN driver
LEFT JOIN driven_brokers AS state ON state.broker_id = broker.id
WHERE broker.management <> '' AND broker.id > :after
  AND (CAST(:has_problem AS boolean) IS NULL OR :has_problem = (
      broker.is_active AND (NOT driver.is_there OR coalesce(state.problem, '') <> '')
  ))
ORDER BY broker.id LIMIT :limit
""")  # noqa: S608 - likewise


async def wake(pool: Pool) -> None:
    """Notifies the process that manages brokers. Raises `MooringError`."""
    await fetched(pool, WAKE, ())


@dataclass(frozen=True, slots=True)
class Revocation:
    """A client whose sessions are to be ended; `reason` is disabled, deleted or rotated."""

    id: int
    username: str
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """A revocation that took effect, and when."""

    done_at: datetime
    id: int
    username: str


class EnforcementStore:
    """Connects as mooring_registry. Every method raises `Unavailable`."""

    def __init__(self, engine: AsyncEngine, lease_s: float = 5.0) -> None:
        """The lease ends `lease_s` seconds after it was renewed last."""
        self.engine = engine
        self._engine = engine
        self.lease = Lease(engine, LEASE, lease_s)

    async def wanted(
        self, broker_id: int, most: int, there: Collection[str]
    ) -> Sequence[sa.Row[Any]]:
        """The clients that the broker should hold. If there are more than `most`, it returns at
        least one more than `most`, and all whose usernames are in `there`.
        """
        async with reading(self._engine) as connection:
            values = {"broker_id": broker_id, "most": most, "there": list(there)}
            return (await connection.execute(WANTED, values)).all()

    async def accounted_for(
        self, broker_id: int, usernames: Collection[str], uuids: Collection[str]
    ) -> frozenset[str]:
        """The usernames that are known not to belong there any more; `uuids` are from usernames."""
        values = {"broker_id": broker_id, "usernames": list(usernames), "uuids": list(uuids)}
        async with reading(self._engine) as connection:
            return frozenset((await connection.execute(ACCOUNTED_FOR, values)).scalars())

    async def changes_since(self, horizon: int) -> tuple[int, bool]:
        """The next `horizon`, and whether any access has changed since the given one."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(CHANGES, {"horizon": horizon})).one()
            return row.horizon, row.has_changes

    async def due(self, broker_id: int) -> list[Revocation]:
        """The next revocations of a broker, the oldest first."""
        values = {"broker_id": broker_id, "at_once": AT_ONCE}
        async with reading(self._engine) as connection:
            return [Revocation(*row) for row in await connection.execute(DUE, values)]

    async def done_before(
        self, broker_id: int, since: Done | None, *, age_s: float, within_s: float
    ) -> list[Done]:
        """The revocations that were done at least `age_s` ago, from `since` on, in this order.

        Without `since`, they were done at most `within_s` ago.
        """
        values = {
            "broker_id": broker_id,
            "since": since and since.done_at,
            "since_id": since.id if since else 0,
            "age_s": age_s,
            "within_s": within_s,
            "at_once": AT_ONCE,
        }
        async with reading(self._engine) as connection:
            return [Done(*row) for row in await connection.execute(DONE, values)]

    async def done(self, broker_id: int, sessions: Mapping[int, int | None]) -> None:
        """Records that revocations took effect, with the numbers of ended sessions, if known."""
        changes = [{"revocation": key, "sessions": value} for key, value in sessions.items()]
        update = (
            sa.update(revocations)
            .where(revocations.c.id == sa.bindparam("revocation"))
            .values(
                done_at=sa.func.clock_timestamp(), sessions=sa.bindparam("sessions"), failure=""
            )
        )
        async with writing(self._engine) as connection:
            await connection.execute(update, changes)
            await connection.execute(PRUNE, {"broker_id": broker_id})

    async def failed(self, ids: Collection[int], failure: str) -> None:
        """Records that revocations failed; they are tried again."""
        if not ids:
            return
        update = (
            sa.update(revocations)
            # Some revocations may have been done before the failure.
            .where(revocations.c.id.in_(ids), revocations.c.done_at.is_(None))
            .values(failure=failure)
        )
        async with writing(self._engine) as connection:
            await connection.execute(update)

    async def note(
        self,
        broker_id: int,
        *,
        clients: int | None,
        is_in_step: bool,
        problem: str,
        is_partial: bool,
    ) -> None:
        """Records the state of a broker. `is_partial`: the problem concerns only some clients."""
        # The transaction's own time is the same for each column.
        now = sa.func.now()
        values: dict[str, Any] = {
            "looked_at": now,
            "clients": clients,
            "problem": problem,
            "is_partial": is_partial,
        }
        if is_in_step:
            values["in_step_at"] = now
        statement = insert(driven_brokers).values(broker_id=broker_id, **values)
        async with writing(self._engine) as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[driven_brokers.c.broker_id], set_=values
                )
            )
            if problem and not is_partial:
                # Answers that wait for this broker are sent at once.
                await connection.execute(NOTIFY_HELD)

    async def state(self, broker_id: int) -> sa.Row[Any]:
        """The state of a broker, managed or not, and how long its last revocations took.

        Raises `BrokerNotFound`.
        """
        async with reading(self._engine) as connection:
            row = (await connection.execute(STATE, {"broker_id": broker_id})).one_or_none()
        if row is None:
            raise BrokerNotFound("there is no such broker")
        return row

    async def states_after(
        self, broker_id: int | None, limit: int, *, has_problem: bool | None
    ) -> Sequence[sa.Row[Any]]:
        """The states of the next managed brokers, in the order of their ids. With `has_problem`,
        only those of active brokers with a problem, or only the others.
        """
        values = {"after": broker_id or 0, "limit": limit, "has_problem": has_problem}
        async with reading(self._engine) as connection:
            return (await connection.execute(STATES, values)).all()
