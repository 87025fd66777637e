"""Admission at brokers: broker secrets, service accounts, changes and revocations."""

from alembic import op

revision = "0017"
down_revision = "0016"

# Roles belong to the whole server, so a migration of another Mooring database may have made it.
ROLE = """
DO $$ BEGIN
    CREATE ROLE mooring_access NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""

TABLES = """
ALTER TABLE fleets ADD COLUMN is_active boolean NOT NULL DEFAULT true;

-- The password before the present one, as long as it is still accepted.
ALTER TABLE devices
    ADD COLUMN previous_password_hash text,
    ADD COLUMN previous_salt text,
    ADD COLUMN previous_until timestamptz,
    ADD CONSTRAINT previous_is_whole CHECK (
        num_nulls(previous_password_hash, previous_salt, previous_until) IN (0, 3)
    );

-- The secrets with which brokers ask about clients.
CREATE TABLE broker_secrets (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    broker_id    integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    secret_hash  bytea NOT NULL UNIQUE,
    prefix       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz
);
CREATE INDEX broker_secrets_broker ON broker_secrets (broker_id);

-- MQTT users that are not devices: back ends, bridges, people who debug.
CREATE TABLE service_accounts (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- A device's username begins with "device_".
    username      text COLLATE "C" NOT NULL UNIQUE
                  CHECK (username <> '' AND username !~ '^device_'),
    description   text NOT NULL DEFAULT '',
    password_hash text NOT NULL,
    password_salt text NOT NULL,
    publish       text[] NOT NULL DEFAULT '{}',
    subscribe     text[] NOT NULL DEFAULT '{}',
    -- Null: all brokers.
    broker_ids    integer[],
    is_active     boolean NOT NULL DEFAULT true,
    expires_at    timestamptz,
    revision      bigint NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- Clients whose access has changed, one line for each statement; processes remove them from their
-- caches. Lines become visible in the order of commits, not of their ids, so readers go by the
-- transaction.
CREATE TABLE access_changes (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xact      bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    usernames text[] NOT NULL DEFAULT '{}',
    fleet_ids text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX access_changes_xact ON access_changes (xact);
CREATE INDEX access_changes_at ON access_changes (at);

-- Clients whose sessions are to be ended, at each of the managed brokers.
CREATE TABLE revocations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username    text COLLATE "C" NOT NULL,
    device_uuid text COLLATE "C" NOT NULL,
    broker_id   integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    reason      text NOT NULL CHECK (reason IN ('disabled', 'deleted', 'rotated')),
    asked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at     timestamptz,
    -- The number of sessions that were ended.
    sessions    integer,
    -- The error of the last attempt.
    failure     text NOT NULL DEFAULT ''
);
CREATE INDEX revocations_due ON revocations (broker_id, id) WHERE done_at IS NULL;
CREATE INDEX revocations_done ON revocations (broker_id, done_at) WHERE done_at IS NOT NULL;
"""

# A notification makes commits wait for one another, so only a revocation notifies; an answer to a
# device never does.
TRIGGERS = """
CREATE FUNCTION note_access() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    touched text[];
    is_ended boolean;
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- Brokers that ask will ask; those that are told are to be told.
        IF NOT EXISTS (
            SELECT FROM public.mqtt_broker_config WHERE management = 'mosquitto'
        ) THEN
            RETURN NULL;
        END IF;
        SELECT array_agg(mqtt_username) INTO touched
        FROM arrived JOIN public.mqtt_broker_config AS broker
            ON broker.id = ANY (arrived.told_broker_ids) AND broker.management = 'mosquitto';
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(mqtt_username) INTO touched FROM gone;
        is_ended := true;
        INSERT INTO public.revocations (username, device_uuid, broker_id, reason)
        SELECT gone.mqtt_username, gone.uuid, broker.id, 'deleted'
        FROM gone JOIN public.mqtt_broker_config AS broker
            ON broker.id = ANY (gone.told_broker_ids) AND broker.management <> ''
        WHERE gone.is_active;
    ELSE
        SELECT array_agg(gone.mqtt_username),
               bool_or(gone.is_active AND NOT arrived.is_active
                       OR gone.mqtt_password_hash <> arrived.mqtt_password_hash
                       OR gone.previous_until IS DISTINCT FROM arrived.previous_until)
        INTO touched, is_ended
        FROM gone JOIN arrived USING (id)
        WHERE gone.is_active <> arrived.is_active
           OR gone.mqtt_password_hash <> arrived.mqtt_password_hash
           OR gone.previous_until IS DISTINCT FROM arrived.previous_until
           OR gone.told_broker_ids <> arrived.told_broker_ids
           OR gone.fleet_id <> arrived.fleet_id
           OR gone.provisioned_by_key_id IS NULL
              AND gone.mqtt_broker_id IS DISTINCT FROM arrived.mqtt_broker_id;
        IF is_ended THEN
            INSERT INTO public.revocations (username, device_uuid, broker_id, reason)
            SELECT gone.mqtt_username, gone.uuid, broker.id,
                   CASE WHEN arrived.is_active THEN 'rotated' ELSE 'disabled' END
            FROM gone JOIN arrived USING (id)
            JOIN public.mqtt_broker_config AS broker
                ON broker.id = ANY (gone.told_broker_ids) AND broker.management <> ''
            WHERE gone.is_active AND (NOT arrived.is_active
                OR gone.mqtt_password_hash <> arrived.mqtt_password_hash
                   AND coalesce(arrived.previous_until <= now(), true)
                OR gone.previous_until > now() AND arrived.previous_until IS NULL);
        END IF;
    END IF;
    IF touched IS NOT NULL THEN
        INSERT INTO public.access_changes (usernames) VALUES (touched);
        IF is_ended THEN
            PERFORM pg_notify('mooring_access', '');
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER access_new AFTER INSERT ON devices REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION note_access();
CREATE TRIGGER access_changed AFTER UPDATE ON devices
    REFERENCING OLD TABLE AS gone NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION note_access();
CREATE TRIGGER access_gone AFTER DELETE ON devices REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION note_access();


CREATE FUNCTION note_account_access() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO public.access_changes (usernames) VALUES (ARRAY[OLD.username]);
    -- Whatever it may do or is known by, but not what is said about it.
    IF TG_OP = 'DELETE' OR to_jsonb(NEW) - '{description,revision,updated_at}'::text[]
                           <> to_jsonb(OLD) - '{description,revision,updated_at}'::text[] THEN
        INSERT INTO public.revocations (username, device_uuid, broker_id, reason)
        SELECT OLD.username, '', broker.id, CASE
            WHEN TG_OP = 'DELETE' THEN 'deleted' WHEN NEW.is_active THEN 'rotated' ELSE 'disabled'
        END
        FROM public.mqtt_broker_config AS broker
        WHERE broker.management <> '' AND OLD.is_active
          AND (OLD.broker_ids IS NULL OR broker.id = ANY (OLD.broker_ids));
    END IF;
    PERFORM pg_notify('mooring_access', '');
    RETURN NULL;
END $$;
CREATE TRIGGER access_changed AFTER UPDATE OR DELETE ON service_accounts
    FOR EACH ROW EXECUTE FUNCTION note_account_access();
CREATE TRIGGER revised BEFORE UPDATE ON service_accounts
    FOR EACH ROW EXECUTE FUNCTION count_revision();

CREATE FUNCTION announce_broker_secrets() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('mooring_access', '');
    RETURN NULL;
END $$;
CREATE TRIGGER announced AFTER INSERT OR DELETE OR TRUNCATE ON broker_secrets
    FOR EACH STATEMENT EXECUTE FUNCTION announce_broker_secrets();
"""

GRANTS = """
REVOKE ALL ON FUNCTION note_access(), note_account_access(), announce_broker_secrets() FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mooring_access;
GRANT SELECT ON alembic_version TO mooring_access;
GRANT SELECT (id, uuid, fleet_id, mqtt_broker_id, mqtt_username, mqtt_password_hash,
              credential_salt, password_algorithm, previous_password_hash, previous_salt,
              previous_until, is_active, is_online, last_seen_at, provisioned_by_key_id,
              told_broker_ids)
    ON devices TO mooring_access;
GRANT UPDATE (is_online, last_seen_at) ON devices TO mooring_access;
GRANT SELECT (id, mqtt_broker_id, is_active) ON fleets TO mooring_access;
GRANT SELECT (id, client_id_prefix) ON mqtt_broker_config TO mooring_access;
GRANT SELECT ON broker_secrets, service_accounts, access_changes TO mooring_access;
GRANT UPDATE (last_used_at) ON broker_secrets TO mooring_access;

GRANT SELECT, INSERT, DELETE ON broker_secrets TO mooring_registry;
GRANT SELECT, INSERT, UPDATE, DELETE ON service_accounts TO mooring_registry;
GRANT SELECT, UPDATE, DELETE ON revocations TO mooring_registry;
GRANT SELECT, DELETE ON access_changes TO mooring_registry;

GRANT SELECT ON revocations TO mooring_operator;
GRANT SELECT (id, broker_id, prefix, created_at, last_used_at) ON broker_secrets
    TO mooring_operator;
GRANT SELECT (id, username, description, publish, subscribe, broker_ids, is_active, expires_at,
              revision, created_at, updated_at)
    ON service_accounts TO mooring_operator;
GRANT SELECT (previous_until) ON devices TO mooring_operator;
GRANT UPDATE (is_active) ON fleets TO mooring_operator;
"""


def upgrade() -> None:
    """Makes the role, the tables and their triggers, then grants the rights."""
    for part in (ROLE, TABLES, TRIGGERS, GRANTS):
        op.execute(part)
