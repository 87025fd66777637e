"""Roles lose the rights that their services do not use."""

from alembic import op

revision = "0034"
down_revision = "0033"

TABLES = """
REVOKE UPDATE ON fleet_brokers FROM mooring_registry;
REVOKE DELETE ON driven_brokers FROM mooring_registry;
REVOKE UPDATE ON api_tokens FROM mooring_registry;
GRANT UPDATE (is_active, last_used_at, fleet_ids, devices_made) ON api_tokens TO mooring_registry;
"""

# The sealer cannot take the leases of the registry's processes, and these cannot take the sealer's.
LEASES = """
ALTER TABLE leases ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_the_sealer ON leases TO mooring_sealer USING (name = 'audit_seals');
CREATE POLICY of_the_registry ON leases TO mooring_registry USING (name <> 'audit_seals');
"""

FUNCTIONS = """
REVOKE ALL ON FUNCTION rollout_position(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollout_position(text, text)
    TO mooring_broker, mooring_registry, mooring_operator;
ALTER FUNCTION touch_updated_at() SET search_path = pg_catalog;
"""


def upgrade() -> None:
    """Revokes unused rights, and grants what is used."""
    for part in (TABLES, LEASES, FUNCTIONS):
        op.execute(part)
