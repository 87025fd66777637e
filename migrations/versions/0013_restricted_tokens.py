"""An API token can be restricted to fleets."""

from alembic import op

revision = "0013"
down_revision = "0012"

COLUMNS = """
-- Null: the token is not restricted. The ids are sent as one text with commas between them, so none
-- may contain a comma.
ALTER TABLE api_tokens
    ADD COLUMN fleet_ids text[],
    ADD CONSTRAINT fleet_ids_are_few CHECK (cardinality(fleet_ids) BETWEEN 1 AND 64),
    ADD CONSTRAINT fleet_ids_are_identifiers CHECK (
        cardinality(string_to_array(array_to_string(fleet_ids, ','), ',')) = cardinality(fleet_ids)
        AND array_to_string(fleet_ids, ',') ~ '\\A[A-Za-z0-9_,-]*\\Z'
    ),
    ADD CONSTRAINT admin_is_not_restricted CHECK (role <> 'admin' OR fleet_ids IS NULL);
"""

# Replaces the previous trigger, and announces this column too: registries keep the valid tokens in
# memory.
TRIGGERS = """
DROP TRIGGER announced ON api_tokens;
CREATE TRIGGER announced AFTER INSERT OR DELETE OR TRUNCATE
        OR UPDATE OF id, name, token_hash, role, is_active, expires_at, fleet_ids ON api_tokens
    FOR EACH STATEMENT EXECUTE FUNCTION announce_tokens();
"""

GRANTS = """
GRANT SELECT (fleet_ids) ON api_tokens TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the column and the trigger, then grants the rights."""
    for part in (COLUMNS, TRIGGERS, GRANTS):
        op.execute(part)
