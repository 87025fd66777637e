"""The clients that managed brokers hold: a device is answered when its broker holds it."""

from alembic import op

revision = "0026"
down_revision = "0025"

TABLES = """
-- The clients that a broker holds, as the process that manages it has written or found them. The
-- fingerprint changes with the client's password, and reveals nothing about it.
CREATE TABLE driven_clients (
    broker_id   integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    username    text COLLATE "C" NOT NULL,
    fingerprint text NOT NULL,
    PRIMARY KEY (broker_id, username)
);

ALTER TABLE driven_brokers
    -- When the broker last carried out commands.
    ADD COLUMN progressed_at timestamptz,
    -- Whether the problem concerns only some clients, so that the broker accepts others.
    ADD COLUMN is_partial boolean NOT NULL DEFAULT false;
"""

# Brokers change seldom, so this may notify; changes of devices never do.
TRIGGERS = """
CREATE FUNCTION note_driving() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.management, OLD.protocol, OLD.host, OLD.port)
       IS DISTINCT FROM (NEW.management, NEW.protocol, NEW.host, NEW.port) THEN
        -- It is another broker now: what it holds is not known.
        DELETE FROM public.driven_clients WHERE broker_id = NEW.id;
    END IF;
    PERFORM pg_notify('mooring_driving', '');
    RETURN NULL;
END $$;
CREATE TRIGGER noted_for_driving AFTER INSERT OR UPDATE OR DELETE ON mqtt_broker_config
    FOR EACH ROW EXECUTE FUNCTION note_driving();
"""

GRANTS = """
REVOKE ALL ON FUNCTION note_driving() FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON driven_clients TO mooring_registry;
"""


def upgrade() -> None:
    """Adds the table, the columns and the triggers, then grants the rights."""
    for part in (TABLES, TRIGGERS, GRANTS):
        op.execute(part)
