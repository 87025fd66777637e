"""A version of everything that places devices, so that a statement can check that a resolution is
still current.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

# One row. Versions are compared only for equality: a database that was restored from a backup must
# not count up to a version that a process remembers from before.
TABLES = """
CREATE TABLE placement_version (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO placement_version DEFAULT VALUES;
"""

# A transaction that changes brokers, certificates or fleets locks the row until its commit, so such
# changes happen one after the other. Announcements serialise their commits anyway.
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
    """Makes the row, and renews the version at every change that is announced."""
    for part in (TABLES, TRIGGERS, GRANTS):
        op.execute(part)
