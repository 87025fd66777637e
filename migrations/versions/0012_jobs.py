"""Jobs: what changes many devices, piece by piece."""

from alembic import op

revision = "0012"
down_revision = "0011"

TABLES = """
CREATE TABLE jobs (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text NOT NULL CHECK (kind = 'assign'),
    state          text NOT NULL DEFAULT 'draft'
                   CHECK (state IN ('draft', 'running', 'paused', 'done', 'cancelled')),
    -- Whether it puts back what it has written.
    is_undo        boolean NOT NULL DEFAULT false,
    -- Why it paused by itself.
    failure        text NOT NULL DEFAULT '',
    -- The pin that it writes; null takes pins away. What has gone is for each row to say.
    mqtt_broker_id integer,
    -- Which devices; null for those of a list.
    filter         jsonb,
    -- Of the list: which upload its rows are from, and whether that came to its end.
    upload         integer NOT NULL DEFAULT 0,
    is_uploaded    boolean NOT NULL DEFAULT false,
    -- The number of the last row that was handled, and of the last there is.
    reached        bigint NOT NULL DEFAULT 0,
    last_number    bigint NOT NULL DEFAULT 0,
    -- Of this run: how many rows, in how many seconds of work.
    handled        bigint NOT NULL DEFAULT 0,
    busy_s         double precision NOT NULL DEFAULT 0,
    -- How many of its rows have which outcome.
    outcomes       jsonb NOT NULL DEFAULT '{}',
    -- In whose name it runs.
    actor          text NOT NULL,
    actor_id       text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    ended_at       timestamptz,
    CONSTRAINT list_has_no_filter CHECK (filter IS NULL OR upload = 0)
);
CREATE INDEX jobs_running ON jobs (id) WHERE state = 'running';

-- A device that was moved, or was not and why. A list's rows are all here, from the upload on. No
-- foreign key: no job is ever deleted while it has rows, and the check costs more than the row.
CREATE TABLE job_rows (
    job_id             bigint NOT NULL,
    -- The line of the list, or the id of the device.
    number             bigint NOT NULL,
    device_uuid        text COLLATE "C" NOT NULL,
    -- Null until it was looked up.
    device_id          bigint,
    mqtt_broker_id     integer,
    previous_broker_id integer,
    outcome            text NOT NULL,
    detail             text NOT NULL DEFAULT '',
    PRIMARY KEY (job_id, number)
);
-- For finding what a list names twice.
CREATE INDEX job_rows_uuid ON job_rows (job_id, device_uuid) WHERE device_id IS NULL;
-- For finding the few among the many.
CREATE INDEX job_rows_outcome ON job_rows (job_id, outcome, number)
    WHERE outcome NOT IN ('pending', 'moved');
"""

# Every row of `devices` that changes pays for these: a million of them, half a minute.
CHEAPER = """
-- The same rule. The regular expression that counts to 64 took longer than writing the row.
ALTER TABLE devices
    DROP CONSTRAINT devices_uuid_check,
    ADD CONSTRAINT devices_uuid_check
        CHECK (length(uuid) <= 64 AND uuid ~ '\\A[A-Za-z0-9][A-Za-z0-9_-]*\\Z');

-- It is for those who write SQL by hand; the registry has words of its own for the foreign key.
DROP TRIGGER checked ON devices;
CREATE TRIGGER checked BEFORE UPDATE OF mqtt_broker_id ON devices
    FOR EACH ROW WHEN (current_user <> 'mooring_registry')
    EXECUTE FUNCTION check_broker_exists();

-- It needs nobody's rights, and to set a search path for each row takes longer than the rest.
CREATE OR REPLACE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := pg_catalog.now();
    RETURN NEW;
END $$;
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON jobs TO mooring_registry;
GRANT SELECT, INSERT, UPDATE, DELETE ON job_rows TO mooring_registry;
GRANT SELECT, INSERT, UPDATE ON leases TO mooring_registry;
GRANT SELECT ON jobs, job_rows TO mooring_operator;
"""


def upgrade() -> None:
    """Makes the tables, and updating many devices cheaper; then says who may what."""
    for part in (TABLES, CHEAPER, GRANTS):
        op.execute(part)
