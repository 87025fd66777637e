"""Registrations and refusals over time, and what happened to each device."""

from alembic import op

revision = "0036"
down_revision = "0035"

TABLES = """
-- An empty fleet stands for all together. The latency is a histogram, whose bounds are in
-- registry_service/activity/series/latency.py.
CREATE TABLE registration_counts (
    step          text COLLATE "C" NOT NULL CHECK (step IN ('minute', 'hour')),
    fleet_id      text COLLATE "C" NOT NULL,
    began_at      timestamptz NOT NULL,
    new_devices   bigint NOT NULL,
    known_devices bigint NOT NULL,
    refused       bigint NOT NULL,
    latency       bigint[] NOT NULL CHECK (cardinality(latency) = 22),
    PRIMARY KEY (step, fleet_id, began_at)
);
CREATE INDEX registration_counts_old ON registration_counts (step, began_at);
CREATE TABLE refusal_counts (
    step     text COLLATE "C" NOT NULL CHECK (step IN ('minute', 'hour')),
    fleet_id text COLLATE "C" NOT NULL,
    began_at timestamptz NOT NULL,
    reason   text COLLATE "C" NOT NULL,
    refusals bigint NOT NULL,
    PRIMARY KEY (step, fleet_id, began_at, reason)
);
CREATE INDEX refusal_counts_old ON refusal_counts (step, began_at);

-- Equal events of a period share a row. An address is null when it was cleared.
CREATE TABLE device_events (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id bigint NOT NULL REFERENCES devices ON DELETE CASCADE,
    kind      text COLLATE "C" NOT NULL CHECK (kind IN (
        'registration_refused', 'settings_refused', 'rotation_refused', 'connect_refused',
        'connected', 'answer_changed', 'credentials_rotated', 'credentials_revoked', 'dropped'
    )),
    what      text COLLATE "C" NOT NULL,
    broker_id integer NOT NULL,
    address   text COLLATE "C",
    period    timestamptz NOT NULL,
    details   jsonb,
    count     bigint NOT NULL,
    first_at  timestamptz NOT NULL,
    last_at   timestamptz NOT NULL
);
CREATE UNIQUE INDEX device_events_same
    ON device_events (device_id, kind, what, broker_id, address, period);
CREATE INDEX device_events_addresses ON device_events (last_at) WHERE address <> '';
"""

# The only way to write events, so both roles that do it need no right on the table. Of each device
# the 25 newest refusals and the 25 newest other events are kept. A device that is being deleted is
# left out; the lock keeps others from deletion until the commit. Rows are locked in the order of
# their ids, as in all statements that lock several.
FUNCTION = """
CREATE FUNCTION note_device_events(given json) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE changed bigint[];
BEGIN
    WITH said AS MATERIALIZED (
        SELECT * FROM json_to_recordset(given) AS said (
            uuid text, username text, kind text, what text, broker_id integer, address text,
            details jsonb, count bigint, first_at double precision, last_at double precision
        )
    ), named AS MATERIALIZED (
        SELECT device.id, said.*,
               CASE WHEN said.kind = 'dropped' THEN '-infinity'
                    ELSE date_trunc('hour', to_timestamp(said.first_at))
               END::timestamptz AS period
        FROM said CROSS JOIN LATERAL (
            SELECT id FROM public.devices
            WHERE uuid = said.uuid AND (said.username = '' OR mqtt_username = said.username)
            UNION
            SELECT id FROM public.devices
            WHERE said.username <> '' AND mqtt_username = said.username
              AND provisioned_by_key_id IS NULL
        ) AS device
    ), locked AS MATERIALIZED (
        SELECT id FROM public.devices WHERE id IN (SELECT id FROM named)
        ORDER BY id FOR KEY SHARE SKIP LOCKED
    ), written AS (
        INSERT INTO public.device_events AS known (
            device_id, kind, what, broker_id, address, period, details, count, first_at, last_at
        )
        SELECT id, kind, left(what, 64), broker_id, left(address, 45), period,
               (array_agg(details ORDER BY first_at))[1], sum(count)::bigint,
               to_timestamp(min(first_at)), to_timestamp(max(last_at))
        FROM named JOIN locked USING (id)
        GROUP BY 1, 2, 3, 4, 5, 6
        ORDER BY 1, 2, 3, 4, 5, 6
        ON CONFLICT (device_id, kind, what, broker_id, address, period) DO UPDATE
        SET count = known.count + excluded.count,
            last_at = greatest(known.last_at, excluded.last_at)
        RETURNING device_id
    )
    SELECT array_agg(DISTINCT device_id) INTO changed FROM written;
    DELETE FROM public.device_events WHERE id IN (
        SELECT id FROM public.device_events WHERE id IN (
            SELECT id FROM (
                SELECT id, row_number() OVER (
                    PARTITION BY device_id, kind ~ '_refused$' ORDER BY last_at DESC, id DESC
                ) AS place
                FROM public.device_events
                WHERE device_id = ANY (changed) AND kind <> 'dropped'
            ) AS placed
            WHERE place > 25
        )
        ORDER BY id FOR UPDATE SKIP LOCKED
    );
END $$;
REVOKE ALL ON FUNCTION note_device_events(json) FROM PUBLIC;
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON registration_counts, refusal_counts TO mooring_registry;
GRANT SELECT, UPDATE (address) ON device_events TO mooring_registry;
GRANT EXECUTE ON FUNCTION note_device_events(json) TO mooring_registry, mooring_access;
GRANT SELECT ON registration_counts, refusal_counts, device_events TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the tables and the function, then the rights on them."""
    for part in (TABLES, FUNCTION, GRANTS):
        op.execute(part)
