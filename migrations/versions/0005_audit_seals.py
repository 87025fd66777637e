"""Seals over the audit log, and the role of the process that writes them."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Roles belong to the whole server, so a migration of another Mooring database may have made it.
ROLE = """
DO $$ BEGIN
    CREATE ROLE mooring_sealer NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""

TABLES = """
CREATE TABLE audit_seals (
    -- One more than in the previous seal, so that a gap shows that a seal was removed.
    id           bigint PRIMARY KEY CHECK (id > 0),
    -- The ids of the lines that it covers, their number, and SHA-256 over them in the order of ids.
    ids          int8multirange NOT NULL,
    lines        integer NOT NULL,
    digest       bytea NOT NULL,
    -- No later seal covers a line with this id or a smaller one, or an older line. Such a line that
    -- appears later was inserted afterwards.
    closed_id    bigint NOT NULL,
    closed_at    timestamptz NOT NULL,
    previous_mac bytea NOT NULL,
    -- HMAC-SHA-256 over all of the above, with the key of this id, which is not in the database.
    key_id       bigint NOT NULL,
    mac          bytea NOT NULL,
    sealed_at    timestamptz NOT NULL
);
CREATE INDEX audit_seals_upper ON audit_seals (upper(ids));

-- For loops of which only one process may run: the one with an unexpired row. The term increases
-- with each new holder, so that a holder whose lease has expired notices it.
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
    """Makes the role and the tables, then grants the rights."""
    op.execute(ROLE)
    op.execute(TABLES)
    op.execute(GRANTS)
