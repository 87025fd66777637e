"""Disabling and deleting fleets, and replacing server keys."""

from alembic import op

revision = "0019"
down_revision = "0018"

TABLES = """
-- Disabled fleets whose devices are not all in revocations yet: devices with larger ids are
-- missing. A million devices take half a minute, and the call that disables a fleet does not wait
-- for that.
CREATE TABLE fleet_revocations (
    fleet_id text COLLATE "C" PRIMARY KEY REFERENCES fleets (id) ON DELETE CASCADE,
    after_id bigint NOT NULL DEFAULT 0
);
"""

# For the deletion of fleets, and the replacement of server keys.
REMOVAL = """
-- A device and its key have the same fleet. So the check for a deleted key searches only its fleet;
-- an index by key would slow down every registration.
ALTER TABLE provisioning_keys ADD CONSTRAINT provisioning_keys_fleets UNIQUE (id, fleet_id);
ALTER TABLE devices
    DROP CONSTRAINT devices_provisioned_by_key_id_fkey,
    ADD CONSTRAINT devices_provisioned_by_key_id_fkey
        FOREIGN KEY (provisioned_by_key_id, fleet_id) REFERENCES provisioning_keys (id, fleet_id);

-- A fleet that is made again with the id of a deleted one gets a higher revision than that had.
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

-- The devices that still use a server key, in the order of lists.
CREATE INDEX devices_server_key ON devices (credential_key_id, id) INCLUDE (is_active);
"""

TRIGGERS = """
-- Puts the next `size` devices of a disabled fleet into revocations; of any such fleet if `wanted`
-- is null. Returns the number of devices that it has read; null if there is no such fleet.
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
"""

GRANTS = """
REVOKE ALL ON FUNCTION note_fleet_access(), revise_fleet(), revoke_fleet_devices(text, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION revoke_fleet_devices(text, integer) TO mooring_registry;
GRANT DELETE ON fleets, provisioning_keys TO mooring_registry;
GRANT SELECT ON fleet_revocations TO mooring_registry, mooring_operator;
"""


def upgrade() -> None:
    """Makes the table, its triggers and the functions that delete, then grants the rights."""
    for part in (TABLES, REMOVAL, TRIGGERS, GRANTS):
        op.execute(part)
