"""Keeps every revision of a broker; errors of the database's checks say what to do.

Also adds labels, and rights for moving the users of a broker.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = """
ALTER TABLE mqtt_broker_config
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT labels_are_text CHECK (
        jsonb_typeof(labels) = 'object'
        AND NOT jsonb_path_exists(labels, 'strict $.* ? (@.type() != "string")')
    );

-- One row for each revision, with the broker as it was then. Rows stay when the broker is deleted,
-- so there is no foreign key to it. Certificates of a revision stay, because a rollback needs them.
CREATE TABLE mqtt_broker_history (
    broker_id             integer NOT NULL,
    revision              bigint NOT NULL,
    kind                  text NOT NULL
                          CHECK (kind IN ('created', 'updated', 'deleted', 'recorded')),
    changed_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by            text NOT NULL,
    by_sql                boolean NOT NULL,
    -- All columns but the password; null where the broker was deleted.
    state                 jsonb,
    password_encrypted    bytea,
    ca_certificate_id     integer REFERENCES certificates (id),
    client_certificate_id integer REFERENCES certificates (id),
    PRIMARY KEY (broker_id, revision),
    CONSTRAINT deleted_has_no_state CHECK ((kind = 'deleted') = (state IS NULL))
);
CREATE INDEX mqtt_broker_history_ca ON mqtt_broker_history (ca_certificate_id);
CREATE INDEX mqtt_broker_history_client ON mqtt_broker_history (client_certificate_id);

INSERT INTO mqtt_broker_history
SELECT id, revision, 'recorded', updated_at, session_user, true,
       to_jsonb(broker) - 'password_encrypted', password_encrypted,
       ca_certificate_id, client_certificate_id
FROM mqtt_broker_config AS broker;

-- A broker's devices in the order of their ids, which is the order of locking.
CREATE INDEX devices_broker_id ON devices (mqtt_broker_id, id) WHERE mqtt_broker_id IS NOT NULL;
DROP INDEX devices_broker;
ALTER INDEX devices_broker_id RENAME TO devices_broker;
"""

# The constraints hold in any case; this trigger says what to do instead of which one is violated.
CHECK = """
CREATE FUNCTION check_broker() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
        RAISE check_violation USING CONSTRAINT = 'id_is_kept',
            MESSAGE = 'a broker keeps its id: devices and its history refer to it',
            HINT = 'Insert another broker and move the devices to it.';
    END IF;
    IF NEW.protocol NOT IN ('mqtt', 'mqtts', 'ws', 'wss') THEN
        RAISE check_violation USING CONSTRAINT = 'mqtt_broker_config_protocol_check',
            MESSAGE = format('%L is not a protocol', NEW.protocol),
            HINT = 'Set protocol to mqtt, mqtts, ws or wss.';
    END IF;
    IF NEW.use_tls <> (NEW.protocol IN ('mqtts', 'wss')) THEN
        RAISE check_violation USING CONSTRAINT = 'use_tls_agrees_with_protocol',
            MESSAGE = format('use_tls = %s disagrees with protocol = %L'
                             ' (use_tls_agrees_with_protocol)', NEW.use_tls, NEW.protocol),
            HINT = 'Set both in one statement: mqtts and wss use TLS, mqtt and ws do not.';
    END IF;
    IF NEW.path <> '' AND NOT (NEW.protocol IN ('ws', 'wss') AND NEW.path LIKE '/%') THEN
        RAISE check_violation USING CONSTRAINT = 'path_is_for_websockets',
            MESSAGE = 'only a websocket has a path, which begins with a slash'
                      ' (path_is_for_websockets)',
            HINT = 'Set path to '''', or protocol to ws or wss and path to something like /mqtt.';
    END IF;
    IF NEW.port NOT BETWEEN 1 AND 65535 THEN
        RAISE check_violation USING CONSTRAINT = 'mqtt_broker_config_port_check',
            MESSAGE = format('%s is not a port', NEW.port),
            HINT = 'Set port to a number from 1 to 65535.';
    END IF;
    IF NEW.keep_alive NOT BETWEEN 0 AND 65535 THEN
        RAISE check_violation USING CONSTRAINT = 'mqtt_broker_config_keep_alive_check',
            MESSAGE = format('keep_alive = %s does not fit into two bytes', NEW.keep_alive),
            HINT = 'Set keep_alive to a number of seconds from 0 to 65535.';
    END IF;
    IF NEW.reconnect_period < 0 OR NEW.connect_timeout < 1 THEN
        RAISE check_violation USING CONSTRAINT = 'times_are_positive',
            MESSAGE = 'reconnect_period must not be negative, connect_timeout must be above 0',
            HINT = 'Both are milliseconds.';
    END IF;
    IF TG_OP = 'INSERT' OR NEW.host <> OLD.host THEN
        IF NEW.host !~ '\\A[A-Za-z0-9.:-]{1,253}\\Z'
           -- Two colons make an IPv6 address, one makes a port.
           OR NEW.host LIKE '%:%' AND NEW.host !~ '\\A[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\\Z'
        THEN
            RAISE check_violation USING CONSTRAINT = 'host_is_a_host',
                MESSAGE = format('%L is not a host name or an IP address', NEW.host),
                HINT = 'Leave out scheme, brackets and port: they have columns of their own.';
        END IF;
    END IF;
    IF jsonb_typeof(NEW.labels) <> 'object'
       OR jsonb_path_exists(NEW.labels, 'strict $.* ? (@.type() != "string")') THEN
        RAISE check_violation USING CONSTRAINT = 'labels_are_text',
            MESSAGE = 'labels must be a JSON object whose values are strings',
            HINT = 'Write them like ''{"site": "berlin"}''.';
    END IF;
    IF NEW.is_default AND NOT NEW.is_active THEN
        RAISE check_violation USING CONSTRAINT = 'default_is_active',
            MESSAGE = format('broker %L is the default, so it must be active (default_is_active)',
                             NEW.name),
            HINT = 'Make another broker the default first, or activate this one.';
    END IF;
    IF NEW.is_default AND EXISTS (
        SELECT FROM public.mqtt_broker_config WHERE is_default AND id <> NEW.id
    ) THEN
        RAISE unique_violation USING CONSTRAINT = 'at_most_one_default',
            MESSAGE = 'another broker is the default (at_most_one_default)',
            HINT = 'In one transaction: UPDATE mqtt_broker_config SET is_default = false WHERE'
                   ' is_default; then set it on the new one.';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION check_broker_is_unused() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    devices bigint; fleets bigint; keys bigint; allowances bigint;
BEGIN
    IF OLD.is_default THEN
        RAISE restrict_violation USING CONSTRAINT = 'default_is_kept',
            MESSAGE = format('broker %L is the default, which cannot be deleted', OLD.name),
            HINT = 'Make another broker the default first.';
    END IF;
    -- The foreign keys hold against those that come meanwhile; they cannot count.
    SELECT count(*) INTO devices FROM public.devices WHERE mqtt_broker_id = OLD.id;
    SELECT count(*) INTO fleets FROM public.fleets WHERE mqtt_broker_id = OLD.id;
    SELECT count(*) INTO keys FROM public.provisioning_keys WHERE default_broker_id = OLD.id;
    SELECT count(*) INTO allowances FROM public.fleet_brokers WHERE broker_id = OLD.id;
    IF devices + fleets + keys + allowances > 0 THEN
        RAISE foreign_key_violation USING CONSTRAINT = 'used_is_kept',
            MESSAGE = format('broker %L is in use', OLD.name),
            DETAIL = format('devices=%s fleets=%s keys=%s allowances=%s',
                            devices, fleets, keys, allowances),
            HINT = format('Move them to another broker first: POST /api/v1/brokers/%s/move.',
                          OLD.id);
    END IF;
    RETURN OLD;
END $$;
"""

# Inserts do not go through it: a registration names only brokers that it has just read.
EXISTENCE = """
CREATE FUNCTION check_broker_exists() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    wanted integer;
    foreign_key text := TG_TABLE_NAME || '_mqtt_broker_id_fkey';
BEGIN
    IF TG_TABLE_NAME = 'provisioning_keys' THEN
        wanted := NEW.default_broker_id;
        foreign_key := 'provisioning_keys_default_broker_id_fkey';
    ELSE
        wanted := NEW.mqtt_broker_id;
    END IF;
    -- The foreign key itself holds against one that is deleted meanwhile.
    IF wanted IS NOT NULL AND NOT EXISTS (
        SELECT FROM public.mqtt_broker_config WHERE id = wanted
    ) THEN
        RAISE foreign_key_violation USING CONSTRAINT = foreign_key, TABLE = TG_TABLE_NAME,
            MESSAGE = format('there is no broker %s', wanted),
            HINT = 'Choose one that is there: SELECT id, name FROM mqtt_broker_config. NULL stands'
                   ' for none.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER checked BEFORE UPDATE OF mqtt_broker_id ON devices
    FOR EACH ROW EXECUTE FUNCTION check_broker_exists();
CREATE TRIGGER checked BEFORE UPDATE OF mqtt_broker_id ON fleets
    FOR EACH ROW EXECUTE FUNCTION check_broker_exists();
CREATE TRIGGER checked BEFORE UPDATE OF default_broker_id ON provisioning_keys
    FOR EACH ROW EXECUTE FUNCTION check_broker_exists();
"""

RECORD = """
CREATE FUNCTION revise_broker() RETURNS trigger
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
    IF NEW IS DISTINCT FROM OLD THEN
        NEW.revision := OLD.revision + 1;
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END $$;

-- A service names the actor for which it acts. For any other role it is the database's user,
-- whatever the session sets.
CREATE FUNCTION record_broker() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    actor text := CASE WHEN pg_has_role(session_user, 'mooring_broker', 'USAGE')
                       THEN nullif(current_setting('mooring.actor', true), '') END;
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO public.mqtt_broker_history (broker_id, revision, kind, changed_by, by_sql)
        VALUES (OLD.id, OLD.revision + 1, 'deleted', coalesce(actor, session_user), actor IS NULL);
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.revision = OLD.revision THEN
        RETURN NULL;
    END IF;
    INSERT INTO public.mqtt_broker_history (
        broker_id, revision, kind, changed_by, by_sql, state, password_encrypted,
        ca_certificate_id, client_certificate_id
    ) VALUES (
        NEW.id, NEW.revision, CASE TG_OP WHEN 'INSERT' THEN 'created' ELSE 'updated' END,
        coalesce(actor, session_user), actor IS NULL,
        to_jsonb(NEW) - 'password_encrypted', NEW.password_encrypted,
        NEW.ca_certificate_id, NEW.client_certificate_id
    );
    RETURN NULL;
END $$;

-- Triggers run in the order of their names.
DROP TRIGGER revised ON mqtt_broker_config;
CREATE TRIGGER checked BEFORE INSERT OR UPDATE ON mqtt_broker_config
    FOR EACH ROW EXECUTE FUNCTION check_broker();
CREATE TRIGGER checked_unused BEFORE DELETE ON mqtt_broker_config
    FOR EACH ROW EXECUTE FUNCTION check_broker_is_unused();
CREATE TRIGGER revised BEFORE INSERT OR UPDATE ON mqtt_broker_config
    FOR EACH ROW EXECUTE FUNCTION revise_broker();
CREATE TRIGGER recorded AFTER INSERT OR UPDATE OR DELETE ON mqtt_broker_config
    FOR EACH ROW EXECUTE FUNCTION record_broker();
"""

GRANTS = """
REVOKE ALL ON FUNCTION check_broker(), check_broker_is_unused(), check_broker_exists(),
    revise_broker(), record_broker() FROM PUBLIC;
-- Only the trigger may write it.
GRANT SELECT ON mqtt_broker_history TO mooring_broker;
GRANT SELECT (broker_id, revision, kind, changed_at, changed_by, by_sql, state,
              ca_certificate_id, client_certificate_id)
    ON mqtt_broker_history TO mooring_operator;
GRANT UPDATE (labels) ON mqtt_broker_config TO mooring_operator;
-- A broker's id is part of the associated data of its encrypted password.
GRANT USAGE ON SEQUENCE mqtt_broker_config_id_seq TO mooring_broker;
-- Users are moved only to a broker that exists and is active.
GRANT SELECT (id, is_active) ON mqtt_broker_config TO mooring_registry;
"""


def upgrade() -> None:
    """Makes the history and its triggers, then grants the rights."""
    for part in (TABLES, CHECK, EXISTENCE, RECORD, GRANTS):
        op.execute(part)
