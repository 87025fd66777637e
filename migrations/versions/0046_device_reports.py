"""Devices report whether they reached the brokers that they were told."""

from alembic import op

revision = "0046"
down_revision = "0045"

# A device has one row for each state, so that a failure and the connection to another broker right
# after it are both known. There is no foreign key, as with device_events: its locks would be in the
# way of other changes of the devices.
TABLES = """
CREATE TABLE device_reports (
    device_id   bigint NOT NULL,
    state       text COLLATE "C" NOT NULL CHECK (state IN ('connected', 'failed')),
    -- One of the brokers that the device was told; null for any other.
    broker_id   integer,
    error       text NOT NULL CHECK (length(error) <= 256),
    generation  text NOT NULL CHECK (length(generation) <= 64),
    reported_at timestamptz NOT NULL,
    PRIMARY KEY (device_id, state)
) WITH (fillfactor = 80);
CREATE INDEX device_reports_connected ON device_reports (broker_id) WHERE state = 'connected';
CREATE INDEX device_reports_failed ON device_reports (reported_at) WHERE state = 'failed';
"""

# Existing events have fewer kinds, so they need no check.
EVENTS = """
ALTER TABLE device_events DROP CONSTRAINT device_events_kind_check;
ALTER TABLE device_events ADD CONSTRAINT device_events_kind_check CHECK (kind IN (
    'registration_refused', 'settings_refused', 'rotation_refused', 'connect_refused', 'connected',
    'answer_changed', 'credentials_rotated', 'credentials_revoked', 'reported_connected',
    'reported_failed', 'dropped'
)) NOT VALID;
"""

# The names of turns are those that exist.
TURNS = """
ALTER TABLE turns DROP CONSTRAINT turns_name_check;
INSERT INTO turns VALUES ('device_reports');
DO $$
BEGIN
    EXECUTE (
        SELECT format(
            'ALTER TABLE public.turns ADD CONSTRAINT turns_name_check CHECK (name IN (%s))',
            string_agg(quote_literal(name), ', ' ORDER BY name)
        )
        FROM public.turns
    );
END $$;
"""

# Writes the reports of devices, at most one a minute for each device and state, and returns those
# that differ from the last report of their device. The row of `turns` keeps reports and deletions
# of devices apart, so that no report is written for a device that is gone; deletions do not wait
# for one another. A report that is lost in a crash does no harm, so no commit waits for the disk.
# A report names a broker by the parts of its URL, of which the protocol and the host are in lower
# case; the first of the told brokers that it fits is meant.
NOTING = """
CREATE FUNCTION note_device_reports(given json)
    RETURNS TABLE (device_id bigint, state text, broker_id integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
#variable_conflict use_column
BEGIN
    -- Most reports come within a minute after another one, and need no lock.
    IF NOT EXISTS (
        SELECT FROM json_to_recordset(given) AS said (device_id bigint, state text)
        LEFT JOIN public.device_reports AS known
            ON known.device_id = said.device_id AND known.state = said.state
        WHERE known.reported_at IS NULL OR known.reported_at <= now() - interval '1 minute'
    ) THEN
        RETURN;
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM FROM public.turns WHERE name = 'device_reports' FOR UPDATE;
    RETURN QUERY
    WITH said AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS said (
            device_id bigint, state text, protocol text, host text, port integer, path text,
            error text, generation text
        )
    ), due AS MATERIALIZED (
        SELECT said.device_id, said.state, said.error, said.generation, (
            SELECT broker.id
            FROM unnest(device.told_broker_ids) WITH ORDINALITY AS told (id, place)
            JOIN public.mqtt_broker_config AS broker ON broker.id = told.id
            WHERE broker.protocol = said.protocol AND lower(broker.host) = said.host
              AND broker.port = said.port
              AND coalesce(nullif(broker.path, ''), '/') = said.path
            ORDER BY told.place LIMIT 1
        ) AS broker_id
        FROM said JOIN public.devices AS device ON device.id = said.device_id
        LEFT JOIN public.device_reports AS known
            ON known.device_id = said.device_id AND known.state = said.state
        WHERE known.reported_at IS NULL OR known.reported_at <= now() - interval '1 minute'
    ), last AS MATERIALIZED (
        SELECT DISTINCT ON (known.device_id) known.device_id, known.state, known.broker_id
        FROM public.device_reports AS known
        WHERE known.device_id IN (SELECT device_id FROM due)
        ORDER BY known.device_id, known.reported_at DESC
    ), written AS (
        INSERT INTO public.device_reports AS known (
            device_id, state, broker_id, error, generation, reported_at
        )
        SELECT device_id, state, broker_id, error, generation, now() FROM due ORDER BY 1, 2
        ON CONFLICT (device_id, state) DO UPDATE
        SET broker_id = excluded.broker_id, error = excluded.error,
            generation = excluded.generation, reported_at = excluded.reported_at
        RETURNING known.device_id, known.state, known.broker_id
    )
    SELECT written.device_id, written.state, written.broker_id
    FROM written LEFT JOIN last ON last.device_id = written.device_id
    WHERE (written.state, written.broker_id) IS DISTINCT FROM (last.state, last.broker_id);
END $$;
REVOKE ALL ON FUNCTION note_device_reports(json) FROM PUBLIC;

CREATE FUNCTION delete_device_reports() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM FROM public.turns WHERE name = 'device_reports' FOR SHARE;
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE public.device_reports;
    ELSE
        DELETE FROM public.device_reports WHERE device_id IN (SELECT id FROM gone);
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION delete_device_reports() FROM PUBLIC;
CREATE TRIGGER reports_gone AFTER DELETE ON devices REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION delete_device_reports();
CREATE TRIGGER reports_truncated AFTER TRUNCATE ON devices
    FOR EACH STATEMENT EXECUTE FUNCTION delete_device_reports();
"""

# What active devices say of each broker. A device that cannot reach a broker tries again soon, so
# its failure counts for five minutes, unless it reached the broker since. A device that stays
# connected asks for its broker every hour unless set otherwise, and may report then, so its
# connection counts for two hours, unless it failed since.
VIEWS = """
CREATE VIEW broker_reports AS
WITH failing AS (
    SELECT failed.broker_id, count(*) AS devices, count(DISTINCT device.fleet_id) AS fleets
    FROM device_reports AS failed
    JOIN devices AS device ON device.id = failed.device_id AND device.is_active
    WHERE failed.state = 'failed' AND failed.reported_at > now() - interval '5 minutes'
      AND NOT EXISTS (
          SELECT FROM device_reports AS later
          WHERE later.device_id = failed.device_id AND later.state = 'connected'
            AND later.broker_id = failed.broker_id AND later.reported_at >= failed.reported_at
      )
    GROUP BY failed.broker_id
)
SELECT broker.id AS broker_id,
       coalesce(failing.devices, 0) AS failing_devices,
       coalesce(failing.fleets, 0) AS failing_fleets,
       (
           SELECT count(*)
           FROM device_reports AS connected
           JOIN devices AS device ON device.id = connected.device_id AND device.is_active
           WHERE connected.state = 'connected' AND connected.broker_id = broker.id
             AND connected.reported_at > now() - interval '2 hours'
             AND NOT EXISTS (
                 SELECT FROM device_reports AS later
                 WHERE later.device_id = connected.device_id AND later.state = 'failed'
                   AND later.broker_id = connected.broker_id
                   AND later.reported_at > connected.reported_at
             )
       ) AS connected_devices
FROM mqtt_broker_config AS broker LEFT JOIN failing ON failing.broker_id = broker.id;
"""

GRANTS = """
GRANT SELECT ON device_reports TO mooring_registry, mooring_operator;
GRANT SELECT ON broker_reports TO mooring_broker, mooring_operator;
GRANT EXECUTE ON FUNCTION note_device_reports(json) TO mooring_registry;
"""


def upgrade() -> None:
    """Makes the table, the functions and the view, then grants the rights."""
    for part in (TABLES, EVENTS, TURNS, NOTING, VIEWS, GRANTS):
        op.execute(part)
