"""API tokens get a prefix that shows in lists, and changes of tokens are announced."""

from alembic import op

revision = "0004"
down_revision = "0003"

COLUMNS = """
-- The first characters of the token, too few to guess the rest from; empty for older tokens.
ALTER TABLE api_tokens ADD COLUMN prefix text NOT NULL DEFAULT '';
"""

# The registries keep the valid tokens in memory. The trigger names the columns that decide whether
# a token is valid, so that recording the last use announces nothing.
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
    """Adds the column and the trigger, then grants the rights."""
    for part in (COLUMNS, TRIGGERS, GRANTS):
        op.execute(part)
