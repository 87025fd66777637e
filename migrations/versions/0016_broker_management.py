"""How Mooring manages brokers, and the state of each managed broker."""

from alembic import op

revision = "0016"
down_revision = "0015"

TABLES = """
-- How Mooring manages a broker, with the broker's username and password.
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

-- The state of managed brokers, as the process that manages them last found it.
CREATE TABLE driven_brokers (
    broker_id  integer PRIMARY KEY REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    looked_at  timestamptz NOT NULL,
    -- For a Mosquitto, the number of clients that it should hold; null for brokers that ask.
    clients    integer,
    -- When it was last in step.
    in_step_at timestamptz,
    -- Why it is not in step.
    problem    text NOT NULL DEFAULT ''
);
"""

# The constraints hold in any case; this trigger says what to do instead of which one is violated.
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

GRANTS = """
REVOKE ALL ON FUNCTION check_broker_management() FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON driven_brokers TO mooring_registry;
GRANT SELECT (management) ON mqtt_broker_config TO mooring_registry;
GRANT SELECT ON driven_brokers TO mooring_operator;
-- Operators may not set the address to which a password is sent.
GRANT UPDATE (management) ON mqtt_broker_config TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the columns, the table and the checks, then grants the rights."""
    for part in (TABLES, CHECK, GRANTS):
        op.execute(part)
