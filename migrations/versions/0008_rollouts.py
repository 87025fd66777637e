"""Rollouts: moves of a fleet to another broker, one wave of devices after another."""

from alembic import op

revision = "0008"
down_revision = "0007"

# The state of a rollout is four columns of the fleet. Stopping it clears them, which is one write,
# and no device has to be changed.
TABLES = """
ALTER TABLE fleets
    ADD COLUMN rollout_broker_id integer REFERENCES mqtt_broker_config (id),
    ADD COLUMN rollout_percent   numeric(5, 2) CHECK (rollout_percent BETWEEN 0 AND 100),
    ADD COLUMN rollout_salt      text CHECK (rollout_salt ~ '\\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\\Z'),
    ADD COLUMN rollout_began_at  timestamptz,
    ADD CONSTRAINT rollout_is_whole CHECK (
        num_nulls(rollout_broker_id, rollout_percent, rollout_salt, rollout_began_at) IN (0, 4)
    );
CREATE INDEX fleets_rollout ON fleets (rollout_broker_id) WHERE rollout_broker_id IS NOT NULL;
"""

# Eight bytes as an unsigned number, a type that PostgreSQL does not have, modulo 10,000: the upper
# half is multiplied by 2^32 modulo 10,000, which is 7,296. Salts and uuids contain no escapes of
# the cast. Unlike convert_to the cast is immutable, so PostgreSQL can inline the function.
POSITION = """
CREATE FUNCTION rollout_position(salt text, uuid text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        ('x' || encode(substr(sha256((salt || '/' || uuid)::bytea), 1, 4), 'hex'))::bit(32)::bigint
        % 10000 * 7296 +
        ('x' || encode(substr(sha256((salt || '/' || uuid)::bytea), 5, 4), 'hex'))::bit(32)::bigint
    ) % 10000;
COMMENT ON FUNCTION rollout_position(text, text) IS
    'Where a device stands in a rollout, from 0 to 9,999: it is reached once this is less than'
    ' rollout_percent * 100.';
"""

# Beginning a rollout sets the broker and the percentage; stopping it clears the broker; the trigger
# sets the rest. The constraints hold in any case; the trigger says what to do instead.
TRIGGERS = """
CREATE FUNCTION check_rollout() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.rollout_broker_id IS NULL THEN
        NEW.rollout_percent := NULL;
        NEW.rollout_salt := NULL;
        NEW.rollout_began_at := NULL;
        RETURN NEW;
    END IF;
    -- The foreign key itself holds against one that is deleted meanwhile.
    IF NOT EXISTS (SELECT FROM public.mqtt_broker_config WHERE id = NEW.rollout_broker_id) THEN
        RAISE foreign_key_violation
            USING CONSTRAINT = 'fleets_rollout_broker_id_fkey', TABLE = 'fleets',
            MESSAGE = format('there is no broker %s', NEW.rollout_broker_id),
            HINT = 'Choose one that is there: SELECT id, name FROM mqtt_broker_config. NULL stops'
                   ' the rollout.';
    END IF;
    IF NEW.rollout_percent IS NULL OR NEW.rollout_percent NOT BETWEEN 0 AND 100 THEN
        RAISE check_violation USING CONSTRAINT = 'fleets_rollout_percent_check',
            MESSAGE = 'a rollout needs a percent from 0 to 100 (rollout_is_whole)',
            HINT = 'Set rollout_percent in the same statement. To stop the rollout, set'
                   ' rollout_broker_id to NULL.';
    END IF;
    NEW.rollout_salt := coalesce(NEW.rollout_salt,
                                 left(replace(gen_random_uuid()::text, '-', ''), 16));
    IF NEW.rollout_salt !~ '\\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\\Z' THEN
        RAISE check_violation USING CONSTRAINT = 'fleets_rollout_salt_check',
            MESSAGE = format('%L is no salt for a rollout', NEW.rollout_salt),
            HINT = 'Use up to 64 letters, digits, underscores and hyphens, or NULL for a new one.';
    END IF;
    IF TG_OP = 'INSERT' OR (NEW.rollout_broker_id, NEW.rollout_salt)
                           IS DISTINCT FROM (OLD.rollout_broker_id, OLD.rollout_salt) THEN
        NEW.rollout_began_at := now();
    END IF;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION check_rollout() FROM PUBLIC;

CREATE TRIGGER checked_rollout BEFORE INSERT OR UPDATE OF rollout_broker_id, rollout_percent,
    rollout_salt, rollout_began_at ON fleets
    FOR EACH ROW EXECUTE FUNCTION check_rollout();
"""

# Replaces the previous function, and counts rollouts too.
CHECK = """
CREATE OR REPLACE FUNCTION check_broker_is_unused() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    devices bigint; fleets bigint; keys bigint; allowances bigint; expected bigint;
    rollouts bigint;
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
    SELECT count(*) INTO expected FROM public.expected_devices WHERE mqtt_broker_id = OLD.id;
    SELECT count(*) INTO rollouts FROM public.fleets WHERE rollout_broker_id = OLD.id;
    IF devices + fleets + keys + allowances + expected + rollouts > 0 THEN
        RAISE foreign_key_violation USING CONSTRAINT = 'used_is_kept',
            MESSAGE = format('broker %L is in use', OLD.name),
            DETAIL = format('devices=%s fleets=%s keys=%s allowances=%s expected_devices=%s'
                            ' rollouts=%s',
                            devices, fleets, keys, allowances, expected, rollouts),
            HINT = format('Move them to another broker first: POST /api/v1/brokers/%s/move.',
                          OLD.id);
    END IF;
    RETURN OLD;
END $$;
"""

GRANTS = """
GRANT SELECT (rollout_broker_id, rollout_percent, rollout_salt) ON fleets TO mooring_broker;
GRANT UPDATE (rollout_broker_id, rollout_percent, rollout_salt) ON fleets TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the columns and the functions, then grants the rights."""
    for part in (TABLES, POSITION, TRIGGERS, CHECK, GRANTS):
        op.execute(part)
