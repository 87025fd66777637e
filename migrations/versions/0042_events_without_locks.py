"""Events of devices are noted without a lock at the devices."""

from alembic import op

revision = "0042"
down_revision = "0041"

# It is tolerant of databases in which 0036 has made a part of this: for some days, it did.
#
# A foreign key's locks would let two transactions wait for each other that record answers of the
# same devices, though both lock them in the same order.
TABLES = """
ALTER TABLE device_events DROP CONSTRAINT IF EXISTS device_events_device_id_fkey;
ALTER TABLE turns DROP CONSTRAINT turns_name_check;
ALTER TABLE turns ADD CONSTRAINT turns_name_check CHECK (name IN (
    'placement', 'device_counts', 'broker_secrets', 'usernames', 'first_admin', 'device_events'
));
INSERT INTO turns VALUES ('device_events') ON CONFLICT DO NOTHING;
"""

# The row of `turns` keeps notes and deletions of devices apart, so that no event is written for a
# device that is gone. Deletions do not wait for one another. Otherwise the function is as before.
NOTING = """
CREATE OR REPLACE FUNCTION note_device_events(given json) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE changed bigint[];
BEGIN
    PERFORM FROM public.turns WHERE name = 'device_events' FOR UPDATE;
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
    ), written AS (
        INSERT INTO public.device_events AS known (
            device_id, kind, what, broker_id, address, period, details, count, first_at, last_at
        )
        SELECT id, kind, left(what, 64), broker_id, left(address, 45), period,
               (array_agg(details ORDER BY first_at))[1], sum(count)::bigint,
               to_timestamp(min(first_at)), to_timestamp(max(last_at))
        FROM named
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
"""

DELETION = """
CREATE OR REPLACE FUNCTION delete_device_events() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM FROM public.turns WHERE name = 'device_events' FOR SHARE;
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE public.device_events;
    ELSE
        DELETE FROM public.device_events WHERE device_id IN (SELECT id FROM gone);
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION delete_device_events() FROM PUBLIC;
CREATE OR REPLACE TRIGGER events_gone AFTER DELETE ON devices REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION delete_device_events();
CREATE OR REPLACE TRIGGER events_truncated AFTER TRUNCATE ON devices
    FOR EACH STATEMENT EXECUTE FUNCTION delete_device_events();
"""


def upgrade() -> None:
    """Replaces the foreign key by a trigger."""
    for part in (TABLES, NOTING, DELETION):
        op.execute(part)
