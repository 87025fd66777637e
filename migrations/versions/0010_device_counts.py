"""The last answer and source of each device, and the number of devices of each kind.

A count that every registration increases would be a row that every registration waits for. So a
statement that changes devices appends its changes, one line for each kind of device, and one
process adds those lines to the counts later. The sum of both is exact at any moment.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

TABLES = """
ALTER TABLE devices
    ADD COLUMN told_source text NOT NULL DEFAULT '' CHECK (told_source IN (
        '', 'device', 'rollout', 'fleet', 'region', 'default', 'environment'
    )),
    ADD COLUMN told_ca_ids integer[] NOT NULL DEFAULT '{}';

-- Counts of active devices. Pinned devices are counted by their pin, all others by their fleet, so
-- there are about as many kinds as brokers and fleets.
CREATE TABLE device_counts (
    fleet_id       text COLLATE "C" NOT NULL, -- '' for pinned devices
    mqtt_broker_id integer NOT NULL,          -- the pin; 0 for none
    told_broker_id integer NOT NULL,          -- the first of told_broker_ids; 0 for none
    told_source    text NOT NULL,
    told_ca_ids    integer[] NOT NULL,
    devices        bigint NOT NULL,
    PRIMARY KEY (fleet_id, mqtt_broker_id, told_broker_id, told_source, told_ca_ids)
);
CREATE INDEX device_counts_pinned ON device_counts (mqtt_broker_id) WHERE mqtt_broker_id <> 0;
CREATE INDEX device_counts_told ON device_counts (told_broker_id);

-- Changes that are not yet added to the counts.
CREATE TABLE device_count_changes (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fleet_id       text COLLATE "C" NOT NULL,
    mqtt_broker_id integer NOT NULL,
    told_broker_id integer NOT NULL,
    told_source    text NOT NULL,
    told_ca_ids    integer[] NOT NULL,
    devices        bigint NOT NULL
);
"""

# The columns that make a kind, and the expression of a device for each.
KIND = "fleet_id, mqtt_broker_id, told_broker_id, told_source, told_ca_ids"
KIND_OF_DEVICE = """
    CASE WHEN mqtt_broker_id IS NULL THEN fleet_id ELSE '' END,
    coalesce(mqtt_broker_id, 0), coalesce(told_broker_ids[1], 0), told_source, told_ca_ids
"""

TRIGGERS = f"""
CREATE FUNCTION count_devices() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.device_count_changes ({KIND}, devices)
        SELECT {KIND_OF_DEVICE}, count(*) FROM arrived WHERE is_active GROUP BY 1, 2, 3, 4, 5;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO public.device_count_changes ({KIND}, devices)
        SELECT {KIND_OF_DEVICE}, -count(*) FROM gone WHERE is_active GROUP BY 1, 2, 3, 4, 5;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO public.device_count_changes ({KIND}, devices)
        SELECT {KIND_OF_DEVICE}, sum(change)
        FROM (
            SELECT 1 AS change, * FROM arrived UNION ALL SELECT -1, * FROM gone
        ) AS changed
        WHERE is_active GROUP BY 1, 2, 3, 4, 5 HAVING sum(change) <> 0;
    ELSE
        TRUNCATE public.device_counts, public.device_count_changes;
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION count_devices() FROM PUBLIC;

CREATE TRIGGER counted_new AFTER INSERT ON devices REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION count_devices();
CREATE TRIGGER counted_changed AFTER UPDATE ON devices
    REFERENCING OLD TABLE AS gone NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION count_devices();
CREATE TRIGGER counted_gone AFTER DELETE ON devices REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_devices();
CREATE TRIGGER counted_truncated AFTER TRUNCATE ON devices
    FOR EACH STATEMENT EXECUTE FUNCTION count_devices();
"""  # noqa: S608 - made of the constants above

# Making the triggers locks out writers of devices until the commit.
COUNT = f"""
INSERT INTO device_counts ({KIND}, devices)
SELECT {KIND_OF_DEVICE}, count(*) FROM devices WHERE is_active GROUP BY 1, 2, 3, 4, 5;
"""  # noqa: S608 - made of the constants above

# Only the triggers may append.
GRANTS = """
GRANT SELECT ON device_counts, device_count_changes
    TO mooring_broker, mooring_registry, mooring_operator;
GRANT INSERT, UPDATE, DELETE ON device_counts TO mooring_registry;
GRANT DELETE ON device_count_changes TO mooring_registry;
GRANT SELECT (told_source, told_ca_ids) ON devices TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the columns, the tables and the triggers, and counts the devices that exist."""
    for part in (TABLES, TRIGGERS, COUNT, GRANTS):
        op.execute(part)
