"""Sessions of people at the console, and codes with which they sign in once."""

from alembic import op

revision = "0039"
down_revision = "0038"

# Of their secrets only the SHA-256 is stored: they are random and long.
TABLES = """
CREATE TABLE console_sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    token_id uuid NOT NULL REFERENCES api_tokens ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX console_sessions_by_token ON console_sessions (token_id);
CREATE INDEX console_sessions_by_last_use ON console_sessions (last_used_at);
GRANT SELECT, INSERT, DELETE, UPDATE (last_used_at) ON console_sessions TO mooring_registry;
GRANT SELECT (id, token_id, created_at, last_used_at) ON console_sessions TO mooring_operator;

CREATE TABLE sign_in_codes (
    code_hash bytea PRIMARY KEY CHECK (octet_length(code_hash) = 32),
    token_id uuid NOT NULL REFERENCES api_tokens ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_in_codes_by_token ON sign_in_codes (token_id);
CREATE INDEX sign_in_codes_by_expiry ON sign_in_codes (expires_at);
GRANT SELECT, INSERT, DELETE ON sign_in_codes TO mooring_registry;
GRANT SELECT (token_id, expires_at) ON sign_in_codes TO mooring_operator;
"""


def upgrade() -> None:
    """Adds two tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Removes them."""
    op.execute("DROP TABLE console_sessions; DROP TABLE sign_in_codes")
