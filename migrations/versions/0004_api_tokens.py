"""API tokens can be recognised in a list, and what changes about them is announced."""

from alembic import op

revision = "0004"
down_revision = "0003"

COLUMNS = """
-- The first characters, too few to be a secret; empty for tokens that were made before.
ALTER TABLE api_tokens ADD COLUMN prefix text NOT NULL DEFAULT '';
"""

# The registries keep the good tokens in memory. The columns that say which are good are named, so
# that noting the last use announces nothing.
TRIGGERS = """
CREATE FUNCTION announce_tokens() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('mooring_tokens', '');
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION announce_tokens() FROM PUBLIC;

CREATE TRIGGER announced AFTER INSERT OR DELETE OR TRUNCATE
        OR UPDATE OF id, name, token_hash, role, is_active, expires_at ON api_tokens
    FOR EACH STATEMENT EXECUTE FUNCTION announce_tokens();
"""

GRANTS = """
GRANT SELECT (prefix) ON api_tokens TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the column, then the trigger, then says who may read."""
    for part in (COLUMNS, TRIGGERS, GRANTS):
        op.execute(part)
