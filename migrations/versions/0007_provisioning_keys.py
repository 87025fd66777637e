"""Restrictions of provisioning keys, and expected devices."""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLES = """
-- A restriction that is null does not restrict. An empty list would allow no device, and is
-- refused.
ALTER TABLE provisioning_keys
    ADD COLUMN allowed_device_types text[]
        CHECK (cardinality(allowed_device_types) BETWEEN 1 AND 100),
    ADD COLUMN source_networks cidr[] CHECK (cardinality(source_networks) BETWEEN 1 AND 100),
    ADD COLUMN allowed_uuids text[] CHECK (cardinality(allowed_uuids) BETWEEN 1 AND 1000),
    ADD COLUMN uuid_prefix text CHECK (uuid_prefix <> ''),
    ADD COLUMN only_expected boolean NOT NULL DEFAULT false,
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE expected_devices (
    uuid           text COLLATE "C" PRIMARY KEY
                   CHECK (uuid ~ '\\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\\Z'),
    -- The identity of this row: a row that is deleted and made again gets another one.
    id             bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    fleet_id       text COLLATE "C" NOT NULL REFERENCES fleets (id),
    device_name    text,
    device_type    text,
    mqtt_broker_id integer REFERENCES mqtt_broker_config (id),
    region         text,
    latitude       double precision CHECK (latitude BETWEEN -90 AND 90),
    longitude      double precision CHECK (longitude BETWEEN -180 AND 180),
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- Null until the device registers.
    registered_at  timestamptz,
    CONSTRAINT location_is_whole CHECK ((latitude IS NULL) = (longitude IS NULL))
);
CREATE INDEX expected_devices_fleet ON expected_devices (fleet_id, uuid);
CREATE INDEX expected_devices_awaited ON expected_devices (uuid) WHERE registered_at IS NULL;
CREATE INDEX expected_devices_awaited_fleet ON expected_devices (fleet_id, uuid)
    WHERE registered_at IS NULL;
CREATE INDEX expected_devices_arrived ON expected_devices (uuid) WHERE registered_at IS NOT NULL;
CREATE INDEX expected_devices_broker ON expected_devices (mqtt_broker_id, uuid)
    WHERE mqtt_broker_id IS NOT NULL;
"""

TRIGGERS = """
-- The revision of the columns that say what a key allows, without those that count its use. A
-- decision holds as long as the revision stays the same.
CREATE TRIGGER revised BEFORE UPDATE OF fleet_id, description, max_devices, default_broker_id,
    expires_at, is_active, allowed_device_types, source_networks, allowed_uuids, uuid_prefix,
    only_expected ON provisioning_keys
    FOR EACH ROW EXECUTE FUNCTION count_revision();

-- When a device is deleted, it is expected again.
CREATE FUNCTION expect_again() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    UPDATE public.expected_devices AS expected SET registered_at = NULL
    FROM gone WHERE expected.uuid = gone.uuid;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION expect_again() FROM PUBLIC;
CREATE TRIGGER expected_again AFTER DELETE ON devices REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION expect_again();
"""

# Replaces the previous function, and counts expected devices too.
CHECK = """
CREATE OR REPLACE FUNCTION check_broker_is_unused() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    devices bigint; fleets bigint; keys bigint; allowances bigint; expected bigint;
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
    IF devices + fleets + keys + allowances + expected > 0 THEN
        RAISE foreign_key_violation USING CONSTRAINT = 'used_is_kept',
            MESSAGE = format('broker %L is in use', OLD.name),
            DETAIL = format('devices=%s fleets=%s keys=%s allowances=%s expected_devices=%s',
                            devices, fleets, keys, allowances, expected),
            HINT = format('Move them to another broker first: POST /api/v1/brokers/%s/move.',
                          OLD.id);
    END IF;
    RETURN OLD;
END $$;
"""

# An expected device is never edited: it is only marked as registered, or moved to another broker.
GRANTS = """
GRANT SELECT, INSERT, DELETE ON expected_devices TO mooring_registry;
GRANT UPDATE (registered_at, mqtt_broker_id) ON expected_devices TO mooring_registry;
GRANT SELECT (allowed_device_types, source_networks, allowed_uuids, uuid_prefix, only_expected,
              revision, updated_at)
    ON provisioning_keys TO mooring_operator;
GRANT SELECT ON expected_devices TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the columns and the table, then grants the rights."""
    for part in (TABLES, TRIGGERS, CHECK, GRANTS):
        op.execute(part)
