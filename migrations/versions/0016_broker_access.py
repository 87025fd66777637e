"""What brokers are told of who may connect: their secrets, service accounts, what was revoked.

And how fleets go, and server keys.
"""

from alembic import op

revision = "0016"
down_revision = "0015"

# Roles belong to the whole server, so another database of ours may have made it.
ROLE = """
DO $$ BEGIN
    CREATE ROLE mooring_access NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""

TABLES = """
-- How Mooring itself drives a broker, with the broker's username and password.
ALTER TABLE mqtt_broker_config
    ADD COLUMN management text NOT NULL DEFAULT ''
        CHECK (management IN ('', 'mosquitto', 'emqx', 'rabbitmq')),
    ADD COLUMN management_url text NOT NULL DEFAULT '',
    ADD CONSTRAINT management_url_is_for_http CHECK (
        (management IN ('emqx', 'rabbitmq')) = (management_url <> '')
    ),
    ADD CONSTRAINT management_has_login CHECK (
        management = '' OR num_nulls(username, password_encrypted) = 0
    );

ALTER TABLE fleets ADD COLUMN is_active boolean NOT NULL DEFAULT true;

-- The password before the one that is current, for as long as it is still accepted.
ALTER TABLE devices
    ADD COLUMN previous_password_hash text,
    ADD COLUMN previous_salt text,
    ADD COLUMN previous_until timestamptz,
    ADD CONSTRAINT previous_is_whole CHECK (
        num_nulls(previous_password_hash, previous_salt, previous_until) IN (0, 3)
    );

-- What brokers show when they ask who may connect.
CREATE TABLE broker_secrets (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    broker_id    integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    secret_hash  bytea NOT NULL UNIQUE,
    prefix       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz
);
CREATE INDEX broker_secrets_broker ON broker_secrets (broker_id);

-- What is no device and connects all the same: back ends, bridges, people who debug.
CREATE TABLE service_accounts (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- A device's begins otherwise.
    username      text COLLATE "C" NOT NULL UNIQUE
                  CHECK (username <> '' AND username !~ '^device_'),
    description   text NOT NULL DEFAULT '',
    password_hash text NOT NULL,
    password_salt text NOT NULL,
    publish       text[] NOT NULL DEFAULT '{}',
    subscribe     text[] NOT NULL DEFAULT '{}',
    -- Null for all brokers.
    broker_ids    integer[],
    is_active     boolean NOT NULL DEFAULT true,
    expires_at    timestamptz,
    revision      bigint NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- Whose access has changed, a line for each statement: what is kept in memory of them is forgotten.
-- Lines become visible in the order of commits, not of their ids, so readers go by the transaction.
CREATE TABLE access_changes (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xact      bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    usernames text[] NOT NULL DEFAULT '{}',
    fleet_ids text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX access_changes_xact ON access_changes (xact);

-- Whose sessions are to be ended, and at which of the brokers that Mooring drives.
CREATE TABLE revocations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username    text COLLATE "C" NOT NULL,
    device_uuid text COLLATE "C" NOT NULL,
    broker_id   integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    reason      text NOT NULL CHECK (reason IN ('disabled', 'deleted', 'rotated')),
    asked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at     timestamptz,
    -- How many there were.
    sessions    integer,
    -- Why the last try failed.
    failure     text NOT NULL DEFAULT ''
);
CREATE INDEX revocations_due ON revocations (broker_id, id) WHERE done_at IS NULL;
CREATE INDEX revocations_done ON revocations (broker_id, done_at) WHERE done_at IS NOT NULL;

-- How the brokers are that Mooring drives, as whoever drives them last found them.
CREATE TABLE driven_brokers (
    broker_id  integer PRIMARY KEY REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    looked_at  timestamptz NOT NULL,
    -- Of a Mosquitto: who is to be let in; null for brokers that ask.
    clients    integer,
    -- When it last was as it should be.
    in_step_at timestamptz,
    -- What keeps it from being so.
    problem    text NOT NULL DEFAULT ''
);

-- Fleets that were disabled, whose devices are yet to be put there: those with larger ids than
-- this. A million takes half a minute, and whoever disables a fleet does not wait for that.
CREATE TABLE fleet_revocations (
    fleet_id text COLLATE "C" PRIMARY KEY REFERENCES fleets (id) ON DELETE CASCADE,
    after_id bigint NOT NULL DEFAULT 0
);
"""

# The constraints hold whatever happens here; this says what to do instead of what is violated.
CHECK = """
CREATE FUNCTION check_broker_management() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.management NOT IN ('', 'mosquitto', 'emqx', 'rabbitmq') THEN
        RAISE check_violation USING CONSTRAINT = 'mqtt_broker_config_management_check',
            MESSAGE = format('%L is not a management', NEW.management),
            HINT = 'Set management to mosquitto, emqx or rabbitmq, or to '''' for none.';
    END IF;
    IF (NEW.management IN ('emqx', 'rabbitmq')) <> (NEW.management_url <> '') THEN
        RAISE check_violation USING CONSTRAINT = 'management_url_is_for_http',
            MESSAGE = format('management_url disagrees with management = %L'
                             ' (management_url_is_for_http)', NEW.management),
            HINT = 'Set both in one statement: emqx and rabbitmq have a URL, the others ''''.';
    END IF;
    IF NEW.management <> '' AND num_nulls(NEW.username, NEW.password_encrypted) > 0 THEN
        RAISE check_violation USING CONSTRAINT = 'management_has_login',
            MESSAGE = format('management = %L needs a username and a password'
                             ' (management_has_login)', NEW.management),
            HINT = 'Set them by PATCH /api/v1/brokers/{id} first: passwords need the API.';
    END IF;
    -- By SQL no password can be given, so none is sent elsewhere.
    IF TG_OP = 'UPDATE' AND NEW.management <> ''
       AND NOT pg_has_role(session_user, 'mooring_broker', 'USAGE')
       AND (NEW.management_url, NEW.protocol, NEW.host, NEW.port, NEW.verify_certificate)
           IS DISTINCT FROM
           (OLD.management_url, OLD.protocol, OLD.host, OLD.port, OLD.verify_certificate) THEN
        RAISE check_violation USING CONSTRAINT = 'login_stays_where_it_is',
            MESSAGE = 'the broker''s password would be sent elsewhere (login_stays_where_it_is)',
            HINT = 'Use PATCH /api/v1/brokers/{id}, and give the password again.';
    END IF;
    IF NEW.management_url <> '' AND (TG_OP = 'INSERT' OR NEW.management_url <> OLD.management_url)
       AND (length(NEW.management_url) > 2000 OR NEW.management_url !~
            '\\A(https://[][A-Za-z0-9.:-]+|http://(localhost|127\\.[0-9.]+|\\[::1\\])(:[0-9]+)?)'
            '(/[^?#\\s]*)?\\Z') THEN
        RAISE check_violation USING CONSTRAINT = 'management_url_is_a_url',
            MESSAGE = 'this is not the URL of a management API (management_url_is_a_url)',
            HINT = 'Write it like https://emqx.example.com:18083, without a username; http is for'
                   ' localhost, 127.0.0.1 and [::1] alone.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER checked_management
    BEFORE INSERT OR UPDATE OF management, management_url, username, password_encrypted, protocol,
        host, port, verify_certificate
    ON mqtt_broker_config FOR EACH ROW EXECUTE FUNCTION check_broker_management();
"""

# For fleets that go, and server keys that are replaced.
REMOVAL = """
-- A device's key is of its fleet. So a key that is deleted is looked for in its fleet alone: an
-- index by key would cost every registration.
ALTER TABLE provisioning_keys ADD CONSTRAINT provisioning_keys_fleets UNIQUE (id, fleet_id);
ALTER TABLE devices
    DROP CONSTRAINT devices_provisioned_by_key_id_fkey,
    ADD CONSTRAINT devices_provisioned_by_key_id_fkey
        FOREIGN KEY (provisioned_by_key_id, fleet_id) REFERENCES provisioning_keys (id, fleet_id);

-- A fleet that is made again under the id of one that has gone is newer than that was.
CREATE SEQUENCE fleet_revisions;
SELECT setval('fleet_revisions', (SELECT coalesce(max(revision), 1) FROM fleets));
CREATE FUNCTION revise_fleet() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    NEW.revision := nextval('public.fleet_revisions');
    NEW.updated_at := now();
    RETURN NEW;
END $$;
DROP TRIGGER revised ON fleets;
CREATE TRIGGER revised BEFORE INSERT OR UPDATE ON fleets
    FOR EACH ROW EXECUTE FUNCTION revise_fleet();

-- Who has yet to leave a server key, in the order of lists.
CREATE INDEX devices_server_key ON devices (credential_key_id, id) INCLUDE (is_active);
"""

# Notifying makes commits wait for one another, so only what ends an access notifies: never that a
# device was told its broker.
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

-- Puts the next `size` devices of a fleet that was disabled into revocations; of any such fleet
-- where `wanted` is null. Returns how many it has looked at; null where there is no such fleet.
CREATE FUNCTION revoke_fleet_devices(wanted text, size integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    pending record;
    seen integer;
    last_id bigint;
BEGIN
    SELECT * INTO pending FROM public.fleet_revocations
    WHERE wanted IS NULL OR fleet_id = wanted
    ORDER BY fleet_id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    WITH chosen AS MATERIALIZED (
        SELECT * FROM public.devices
        WHERE fleet_id = pending.fleet_id AND id > pending.after_id ORDER BY id LIMIT size
    ), asked AS (
        INSERT INTO public.revocations (username, device_uuid, broker_id, reason)
        SELECT chosen.mqtt_username, chosen.uuid, broker.id, 'disabled'
        FROM chosen JOIN public.mqtt_broker_config AS broker
            ON broker.id = ANY (chosen.told_broker_ids) AND broker.management <> ''
        WHERE chosen.is_active
    )
    SELECT count(*), max(id) INTO seen, last_id FROM chosen;
    IF seen < size THEN
        DELETE FROM public.fleet_revocations WHERE fleet_id = pending.fleet_id;
    ELSE
        UPDATE public.fleet_revocations SET after_id = last_id WHERE fleet_id = pending.fleet_id;
    END IF;
    PERFORM pg_notify('mooring_access', '');
    RETURN seen;
END $$;

CREATE FUNCTION note_fleet_access() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO public.access_changes (fleet_ids) VALUES (ARRAY[NEW.id]);
    PERFORM pg_notify('mooring_access', '');
    IF OLD.is_active AND NOT NEW.is_active THEN
        -- A registration under way is decided again: it holds for a key as it was read.
        UPDATE public.provisioning_keys SET description = description WHERE fleet_id = NEW.id;
        INSERT INTO public.fleet_revocations (fleet_id) VALUES (NEW.id)
        ON CONFLICT (fleet_id) DO UPDATE SET after_id = 0;
        PERFORM public.revoke_fleet_devices(NEW.id, 1000);
    ELSIF NEW.is_active THEN
        DELETE FROM public.fleet_revocations WHERE fleet_id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
-- The fleet's own broker admits imported devices that have not registered.
CREATE TRIGGER access_changed AFTER UPDATE OF is_active, mqtt_broker_id ON fleets
    FOR EACH ROW WHEN (OLD.is_active <> NEW.is_active
                       OR OLD.mqtt_broker_id IS DISTINCT FROM NEW.mqtt_broker_id)
    EXECUTE FUNCTION note_fleet_access();

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

VIEWS = """
-- Who may connect now. `found_by` is what there is an index on: of a device that has registered its
-- uuid, for whatever registers would pay for an index on all usernames.
CREATE VIEW mqtt_devices AS
    SELECT device.uuid, device.mqtt_username AS username,
           device.mqtt_password_hash AS password_hash, device.credential_salt AS salt,
           device.password_algorithm AS algorithm,
           device.told_broker_ids AS broker_ids, device.uuid AS found_by
    FROM devices AS device JOIN fleets AS fleet ON fleet.id = device.fleet_id
    WHERE device.is_active AND fleet.is_active AND device.provisioned_by_key_id IS NOT NULL
    UNION ALL
    SELECT device.uuid, device.mqtt_username, device.mqtt_password_hash, device.credential_salt,
           device.password_algorithm,
           ARRAY[coalesce(device.mqtt_broker_id, fleet.mqtt_broker_id)], device.mqtt_username
    FROM devices AS device JOIN fleets AS fleet ON fleet.id = device.fleet_id
    WHERE device.is_active AND fleet.is_active AND device.provisioned_by_key_id IS NULL;
CREATE VIEW mqtt_accounts AS
    SELECT username, password_hash, password_salt AS salt, publish, subscribe,
           coalesce(broker_ids, ARRAY(SELECT id FROM mqtt_broker_config)) AS broker_ids,
           username AS found_by
    FROM service_accounts WHERE is_active AND (expires_at IS NULL OR expires_at > now());

-- Brokers that read SQL ask for themselves: WHERE username = $1 AND found_by IN ($1, substr($1, 8))
-- AND <their id> = ANY (broker_ids).
CREATE OR REPLACE VIEW mqtt_users AS
    SELECT username, password_hash, salt, false AS is_superuser, algorithm, broker_ids, found_by
    FROM mqtt_devices WHERE algorithm <> 'none'
    UNION ALL
    SELECT username, password_hash, salt, false, 'sha256', broker_ids, found_by FROM mqtt_accounts;

-- access: 1 subscribe, 2 publish, 3 both.
CREATE OR REPLACE VIEW mqtt_acls AS
    SELECT username, 'iot/device/' || uuid || '/#' AS topic, 3 AS access, broker_ids, found_by
    FROM mqtt_devices
    UNION ALL
    SELECT username, unnest(subscribe), 1, broker_ids, found_by FROM mqtt_accounts
    UNION ALL
    SELECT username, unnest(publish), 2, broker_ids, found_by FROM mqtt_accounts;
"""

GRANTS = """
REVOKE ALL ON FUNCTION check_broker_management(), note_access(), note_fleet_access(),
    note_account_access(), announce_broker_secrets(), revise_fleet(),
    revoke_fleet_devices(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION revoke_fleet_devices(text, integer) TO mooring_registry;
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
GRANT DELETE ON access_changes TO mooring_access;

GRANT SELECT, INSERT, DELETE ON broker_secrets TO mooring_registry;
GRANT SELECT, INSERT, UPDATE, DELETE ON service_accounts TO mooring_registry;
GRANT SELECT, UPDATE, DELETE ON revocations TO mooring_registry;
GRANT SELECT ON access_changes TO mooring_registry;
GRANT SELECT, INSERT, UPDATE, DELETE ON driven_brokers TO mooring_registry;
GRANT DELETE ON fleets, provisioning_keys TO mooring_registry;
GRANT SELECT ON fleet_revocations TO mooring_registry, mooring_operator;

GRANT SELECT ON revocations, driven_brokers TO mooring_operator;
GRANT SELECT (id, broker_id, prefix, created_at, last_used_at) ON broker_secrets
    TO mooring_operator;
GRANT SELECT (id, username, description, publish, subscribe, broker_ids, is_active, expires_at,
              revision, created_at, updated_at)
    ON service_accounts TO mooring_operator;
GRANT SELECT (previous_until) ON devices TO mooring_operator;
GRANT UPDATE (is_active) ON fleets TO mooring_operator;
-- Where a password is sent is not theirs to say.
GRANT UPDATE (management) ON mqtt_broker_config TO mooring_operator;
"""


def upgrade() -> None:
    """Makes the role and the tables, then what fills them, then says who may what."""
    op.execute(ROLE)
    for part in (TABLES, CHECK, REMOVAL, TRIGGERS, VIEWS, GRANTS):
        op.execute(part)
