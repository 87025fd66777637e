"""Uuids are reserved for fleets by their beginning, and restricted tokens name so many devices."""

from alembic import op

revision = "0024"
down_revision = "0023"

TABLES = """
ALTER TABLE fleets
    ADD COLUMN uuid_prefix text COLLATE "C"
    CHECK (uuid_prefix ~ '\\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\\Z');
CREATE UNIQUE INDEX fleets_uuid_prefix ON fleets (uuid_prefix) WHERE uuid_prefix IS NOT NULL;

ALTER TABLE api_tokens
    ADD COLUMN max_devices integer CHECK (max_devices > 0),
    ADD COLUMN devices_made integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT quota_is_kept CHECK (devices_made <= max_devices);
"""

# No prefix begins with another, so at most one is the beginning of a uuid. And whatever sorts
# between a prefix and a uuid that begins with it, begins with it too. So it is the last prefix that
# does not sort behind the uuid, if any.
FUNCTION = """
CREATE FUNCTION reserved_for(device_uuid text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
    found record;
BEGIN
    SELECT id, uuid_prefix INTO found FROM public.fleets
    WHERE uuid_prefix <= device_uuid COLLATE "C" ORDER BY uuid_prefix DESC LIMIT 1;
    RETURN CASE WHEN starts_with(device_uuid, found.uuid_prefix) THEN found.id END;
END $$;
"""

GRANTS = """
REVOKE ALL ON FUNCTION reserved_for(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reserved_for(text) TO mooring_registry, mooring_operator;
GRANT SELECT (max_devices, devices_made) ON api_tokens TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the columns and what finds a prefix, then says who may use them."""
    for part in (TABLES, FUNCTION, GRANTS):
        op.execute(part)
