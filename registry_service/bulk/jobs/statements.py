"""The statements that read many devices at once: the devices of a chunk, or all devices of a job.

PostgreSQL plans them with the values of their parameters. Devices are locked in the order of their
ids, as in all statements that lock several. A chunk finds the device of each row with a lateral
subquery by key, because a join might read all devices for every chunk.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from registry_service.filter_statements import matching

# Why a device of `found`, which has a fleet, may not get the pin `target`; null if it may.
REFUSAL = """
    CASE
        WHEN found.target IS NULL THEN NULL
        WHEN broker.id IS NULL THEN 'BROKER_UNKNOWN'
        WHEN NOT broker.is_active THEN 'BROKER_INACTIVE'
        WHEN fleet.is_restricted AND allowance.fleet_id IS NULL THEN 'BROKER_NOT_ALLOWED'
    END"""
RULES = """
    LEFT JOIN fleets AS fleet ON fleet.id = found.fleet_id
    LEFT JOIN mqtt_broker_config AS broker ON broker.id = found.target
    LEFT JOIN fleet_brokers AS allowance
        ON allowance.fleet_id = found.fleet_id AND allowance.broker_id = found.target"""

# Changes the next `size` devices that match the filter and have another pin, with ids above
# `reached` and up to `until`.
ASSIGN_MATCHING = f"""
WITH found AS MATERIALIZED (
    SELECT device.id, device.uuid, device.fleet_id, device.mqtt_broker_id AS previous,
           CAST(:target AS integer) AS target
    FROM devices AS device
    WHERE device.id > :reached AND device.id <= :until
      AND device.mqtt_broker_id IS DISTINCT FROM CAST(:target AS integer) AND {{matches}}
    ORDER BY device.id LIMIT :size
    FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    SELECT found.*, coalesce({REFUSAL}, 'moved') AS outcome FROM found {RULES}
), moved AS (
    UPDATE devices AS device SET mqtt_broker_id = judged.target
    FROM judged WHERE device.id = judged.id AND judged.outcome = 'moved'
), noted AS (
    INSERT INTO job_rows (job_id, number, device_uuid, device_id, mqtt_broker_id,
                          previous_broker_id, outcome)
    SELECT :job_id, id, uuid, id, target, previous, outcome FROM judged
)
SELECT outcome, count(*), max(id) FROM judged GROUP BY outcome
"""

# The next rows of a list, and the devices that they name.
LISTED = f"""
WITH listed AS MATERIALIZED (
    SELECT number, device_uuid, mqtt_broker_id AS target FROM job_rows
    WHERE job_id = :job_id AND number > :reached AND number <= :until AND outcome = 'pending'
    ORDER BY number LIMIT :size
), named AS MATERIALIZED (
    SELECT listed.*, device.id AS device_id
    FROM listed LEFT JOIN LATERAL (
        SELECT id FROM devices AS device
        WHERE device.uuid = listed.device_uuid LIMIT 1
    ) AS device ON true
), found AS MATERIALIZED (
    SELECT named.number, named.target, device.*
    FROM (SELECT * FROM named ORDER BY device_id) AS named LEFT JOIN LATERAL (
        SELECT id, fleet_id, mqtt_broker_id AS previous FROM devices AS device
        WHERE device.id = named.device_id {{lock}}
    ) AS device ON true
), judged AS MATERIALIZED (
    SELECT found.*, CASE
        WHEN found.id IS NULL THEN 'DEVICE_NOT_FOUND'
        ELSE coalesce({REFUSAL}, CASE
            WHEN found.previous IS NOT DISTINCT FROM found.target THEN 'unchanged' ELSE 'moved'
        END)
    END AS outcome
    FROM found {RULES}
)"""
ASSIGN_LISTED = sa.text(f"""
{LISTED.format(lock="FOR NO KEY UPDATE")}, moved AS (
    UPDATE devices AS device SET mqtt_broker_id = judged.target
    FROM judged WHERE device.id = judged.id AND judged.outcome = 'moved'
), noted AS (
    UPDATE job_rows AS kept
    SET device_id = judged.id, previous_broker_id = judged.previous, outcome = judged.outcome
    FROM judged WHERE kept.number = judged.number AND kept.job_id = :job_id
      AND kept.number > :reached AND kept.number <= (SELECT max(number) FROM judged)
)
SELECT outcome, count(*), max(number) FROM judged GROUP BY outcome
""")
# The outcomes that pending rows would have now.
JUDGE_LISTED = sa.text(f"""
{LISTED.format(lock="LIMIT 1")}
SELECT number, outcome, previous FROM judged
""")

# Gives the devices of the next moved rows their previous pins.
UNDO = sa.text(f"""
WITH moved AS MATERIALIZED (
    SELECT number, device_id, mqtt_broker_id AS written, previous_broker_id AS target FROM job_rows
    WHERE job_id = :job_id AND number > :reached AND number <= :until AND outcome = 'moved'
    ORDER BY number LIMIT :size
), found AS MATERIALIZED (
    SELECT named.number, named.written, named.target, device.*
    FROM (SELECT * FROM moved ORDER BY device_id) AS named LEFT JOIN LATERAL (
        SELECT id, fleet_id, mqtt_broker_id AS pin FROM devices AS device
        WHERE device.id = named.device_id FOR NO KEY UPDATE
    ) AS device ON true
), judged AS MATERIALIZED (
    SELECT found.number, found.id, found.target, CASE
        WHEN found.id IS NULL OR found.pin IS DISTINCT FROM found.written THEN 'changed_since'
        -- An inactive broker is no obstacle, because the device was pinned to it before.
        WHEN {REFUSAL} <> 'BROKER_INACTIVE' THEN 'not_restored'
        ELSE 'undone'
    END AS outcome
    FROM found {RULES}
), restored AS (
    UPDATE devices AS device SET mqtt_broker_id = judged.target
    FROM judged WHERE device.id = judged.id AND judged.outcome = 'undone'
), noted AS (
    UPDATE job_rows AS kept SET outcome = judged.outcome
    FROM judged WHERE kept.number = judged.number AND kept.job_id = :job_id
      AND kept.number > :reached AND kept.number <= (SELECT max(number) FROM judged)
)
SELECT outcome, count(*), max(number) FROM judged GROUP BY outcome
""")

# Adds rows to a list. A row with a uuid that the list has already is refused, because the two rows
# might name different brokers.
ADD_ROWS = sa.text("""
INSERT INTO job_rows (job_id, number, device_uuid, mqtt_broker_id, outcome, detail)
SELECT :job_id, given.number, given.uuid, given.target, CASE
    WHEN given.fault <> '' THEN 'INVALID_ROW'
    WHEN row_number() OVER (PARTITION BY given.uuid ORDER BY given.number) > 1
      OR EXISTS (
        SELECT FROM job_rows AS known
        WHERE known.job_id = :job_id AND known.device_uuid = given.uuid
          AND known.device_id IS NULL AND known.number < given.number
      ) THEN 'UUID_REPEATED'
    ELSE 'pending'
END, given.fault
FROM json_to_recordset(CAST(:rows AS json))
    AS given (number bigint, uuid text, target integer, fault text)
ON CONFLICT DO NOTHING
""")

# The wave of a device: the salt of its fleet's rollout, if the rollout has reached it; else empty.
# `domain.waves` has the same rule.
REACHED = """
LEFT JOIN fleets AS rolling
    ON rolling.id = device.fleet_id AND rolling.rollout_broker_id IS NOT NULL
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN rollout_position(rolling.rollout_salt, device.uuid) < rolling.rollout_percent * 100
        THEN rolling.rollout_salt ELSE ''
    END AS wave
) AS reached"""

# The devices of a job in groups that resolve alike: with the same present pin, new pin, fleet and
# wave. Each group has the number of its devices, and the first and the last uuid.
JUDGED_GROUPS = f"""
SELECT found.previous, found.target, found.fleet_id, found.wave, fleet.revision,
       CASE WHEN found.fleet_id IS NULL THEN 'DEVICE_NOT_FOUND'
            ELSE coalesce({REFUSAL}, CASE
                WHEN found.previous IS NOT DISTINCT FROM found.target THEN 'unchanged'
                ELSE 'moved'
            END)
       END AS outcome,
       found.devices, found.first_uuid, found.last_uuid
FROM found {RULES}"""
GROUP_MATCHING = f"""
WITH found AS MATERIALIZED (
    SELECT device.mqtt_broker_id AS previous, CAST(:target AS integer) AS target, device.fleet_id,
           wave, count(*) AS devices, min(device.uuid) AS first_uuid,
           max(device.uuid) AS last_uuid
    FROM devices AS device {REACHED} WHERE {{matches}}
    GROUP BY device.mqtt_broker_id, device.fleet_id, wave
) {JUDGED_GROUPS}
"""
GROUP_LISTED = sa.text(f"""
WITH found AS MATERIALIZED (
    SELECT device.mqtt_broker_id AS previous, listed.mqtt_broker_id AS target, device.fleet_id,
           wave, count(*) AS devices, min(listed.device_uuid) AS first_uuid,
           max(listed.device_uuid) AS last_uuid
    FROM job_rows AS listed
    LEFT JOIN devices AS device ON device.uuid = listed.device_uuid
    {REACHED}
    WHERE listed.job_id = :job_id AND listed.outcome = 'pending'
    GROUP BY device.mqtt_broker_id, listed.mqtt_broker_id, device.fleet_id, wave
) {JUDGED_GROUPS}
""")


def assign_matching(names: Iterable[str]) -> sa.TextClause:
    """`ASSIGN_MATCHING` for a filter whose conditions have these names."""
    return sa.text(ASSIGN_MATCHING.format(matches=matching(names)))


def group_matching(names: Iterable[str]) -> sa.TextClause:
    """`GROUP_MATCHING` for a filter whose conditions have these names."""
    return sa.text(GROUP_MATCHING.format(matches=matching(names)))
