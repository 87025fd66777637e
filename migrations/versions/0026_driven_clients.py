"""What the brokers hold that Mooring tells of clients: devices wait for it before they connect."""

from alembic import op

revision = "0026"
down_revision = "0025"

TABLES = """
-- The clients that a broker holds, as the process that drives it has made or found them. The
-- fingerprint changes with the client's password, and nothing can be learned from it.
CREATE TABLE driven_clients (
    broker_id   integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    username    text COLLATE "C" NOT NULL,
    fingerprint text NOT NULL,
    PRIMARY KEY (broker_id, username)
);

ALTER TABLE driven_brokers
    -- When the broker last carried out commands.
    ADD COLUMN progressed_at timestamptz,
    -- Whether the problem is about some clients only, and the broker takes others.
    ADD COLUMN is_partial boolean NOT NULL DEFAULT false;
"""

# Brokers change seldom, so this may notify; what devices do never does.
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
    """Adds the table and the columns, then what notices changes, then says who may what."""
    for part in (TABLES, TRIGGERS, GRANTS):
        op.execute(part)
