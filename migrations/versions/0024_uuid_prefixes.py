"""Prefixes of uuids are reserved for fleets, and restricted tokens may name a limited number of
devices.
"""

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

# No prefix begins with another one, so a uuid has at most one prefix. Any text that sorts between a
# prefix and a uuid with that prefix has the prefix too. So the prefix of a uuid is the last prefix
# that does not sort after the uuid, if the uuid begins with it.
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
    """Adds the columns and the function that finds a prefix, then grants the rights."""
    for part in (TABLES, FUNCTION, GRANTS):
        op.execute(part)
