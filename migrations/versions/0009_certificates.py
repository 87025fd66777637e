"""Certificates get a time of creation, and can be replaced."""

from alembic import op

revision = "0009"
down_revision = "0008"

# While a certificate has a replacement, brokers that use it send both.
TABLES = """
ALTER TABLE certificates
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN replacement_id integer REFERENCES certificates (id),
    ADD COLUMN rotation_began_at timestamptz,
    -- The percentage of the devices that must have been notified of the replacement before the
    -- cutover.
    ADD COLUMN rotation_threshold_percent smallint
        CHECK (rotation_threshold_percent BETWEEN 0 AND 100),
    ADD CONSTRAINT replacement_is_another CHECK (replacement_id <> id),
    ADD CONSTRAINT rotation_is_whole CHECK (
        num_nulls(replacement_id, rotation_began_at, rotation_threshold_percent) IN (0, 3)
    );
CREATE INDEX certificates_replacement ON certificates (replacement_id)
    WHERE replacement_id IS NOT NULL;
"""

# The foreign keys prevent a concurrent delete; they do not check the kind.
CHECK = """
CREATE FUNCTION check_broker_certificates() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.ca_certificate_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM public.certificates WHERE id = NEW.ca_certificate_id AND kind = 'ca'
    ) THEN
        RAISE foreign_key_violation USING CONSTRAINT = 'ca_certificate_is_there',
            MESSAGE = format('there is no CA certificate %s', NEW.ca_certificate_id),
            HINT = 'Choose one that is there: SELECT id, name FROM certificates WHERE kind ='
                   ' ''ca''. NULL stands for none.';
    END IF;
    IF NEW.client_certificate_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM public.certificates WHERE id = NEW.client_certificate_id AND kind = 'client'
    ) THEN
        RAISE foreign_key_violation USING CONSTRAINT = 'client_certificate_is_there',
            MESSAGE = format('there is no client certificate %s', NEW.client_certificate_id),
            HINT = 'Choose one that is there: SELECT id, name FROM certificates WHERE kind ='
                   ' ''client''. NULL stands for none.';
    END IF;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION check_broker_certificates() FROM PUBLIC;
CREATE TRIGGER checked_certificates
    BEFORE INSERT OR UPDATE OF ca_certificate_id, client_certificate_id ON mqtt_broker_config
    FOR EACH ROW EXECUTE FUNCTION check_broker_certificates();
"""

# Replaces the previous function: a password that is encrypted anew counts as the same password.
REVISE = """
CREATE OR REPLACE FUNCTION revise_broker() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- One that comes back goes on counting where it ended.
        SELECT coalesce(max(revision), 0) + 1 INTO NEW.revision
        FROM public.mqtt_broker_history WHERE broker_id = NEW.id;
        RETURN NEW;
    END IF;
    NEW.revision := OLD.revision;
    NEW.updated_at := OLD.updated_at;
    IF current_setting('mooring.reencrypting', true) = 'on'
       AND pg_has_role(session_user, 'mooring_broker', 'USAGE') THEN
        OLD.password_encrypted := NEW.password_encrypted;
    END IF;
    IF NEW IS DISTINCT FROM OLD THEN
        NEW.revision := OLD.revision + 1;
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END $$;
"""

# The trigger writes the history, and only the password in a history is ever rewritten.
GRANTS = """
GRANT UPDATE (password_encrypted) ON mqtt_broker_history TO mooring_broker;
GRANT SELECT (created_at, replacement_id, rotation_began_at, rotation_threshold_percent)
    ON certificates TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the columns and their checks, then grants the rights."""
    for part in (TABLES, CHECK, REVISE, GRANTS):
        op.execute(part)
