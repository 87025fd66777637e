"""A version of all that places devices, so that a statement can check what was resolved before."""

from alembic import op

revision = "0003"
down_revision = "0002"

# One row. Versions are compared and never ordered: a database that was restored from a backup
# must not count its way back to one that somebody remembers.
TABLES = """
CREATE TABLE placement_version (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO placement_version DEFAULT VALUES;
"""

# Whoever changes brokers, certificates or fleets holds the row until the commit, so such changes
# take turns; announcing makes them take turns at their commits anyway.
TRIGGERS = """
CREATE OR REPLACE FUNCTION announce_placement() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    UPDATE public.placement_version SET version = gen_random_uuid();
    PERFORM pg_notify('mooring_placement', '');
    RETURN NULL;
END $$;
"""

GRANTS = """
GRANT SELECT ON placement_version TO mooring_broker, mooring_registry;
"""


def upgrade() -> None:
    """Makes the row, and has every change that is announced renew it."""
    for part in (TABLES, TRIGGERS, GRANTS):
        op.execute(part)
