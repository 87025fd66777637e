"""Seals over the audit log, and the role of the process that writes them."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Roles belong to the whole server, so another database of ours may have made it.
ROLE = """
DO $$ BEGIN
    CREATE ROLE mooring_sealer NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""

TABLES = """
CREATE TABLE audit_seals (
    -- One more than the seal before: a gap is a seal that was removed.
    id           bigint PRIMARY KEY CHECK (id > 0),
    -- Exactly the lines it covers, how many they are, and SHA-256 over them in the order of ids.
    ids          int8multirange NOT NULL,
    lines        integer NOT NULL,
    digest       bytea NOT NULL,
    -- No later seal covers a line with this id or a smaller one, or an older one: what appears
    -- there was put in afterwards.
    closed_id    bigint NOT NULL,
    closed_at    timestamptz NOT NULL,
    previous_mac bytea NOT NULL,
    -- HMAC-SHA-256 over all of the above under the key with this id, which is kept elsewhere.
    key_id       bigint NOT NULL,
    mac          bytea NOT NULL,
    sealed_at    timestamptz NOT NULL
);
CREATE INDEX audit_seals_upper ON audit_seals (upper(ids));

-- For loops of which only one may run: whoever holds an unexpired row. The term goes up with each
-- new holder, so that one which was away too long finds out.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    term       bigint NOT NULL DEFAULT 1,
    expires_at timestamptz NOT NULL
);
"""

GRANTS = """
GRANT USAGE ON SCHEMA public TO mooring_sealer;
GRANT SELECT ON alembic_version, audit_log TO mooring_sealer;
GRANT SELECT, INSERT ON audit_seals TO mooring_sealer;
GRANT SELECT, INSERT, UPDATE ON leases TO mooring_sealer;
GRANT SELECT ON audit_seals TO mooring_operator;
"""


def upgrade() -> None:
    """Makes the role, then the tables, then says who may what."""
    op.execute(ROLE)
    op.execute(TABLES)
    op.execute(GRANTS)
