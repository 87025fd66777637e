"""The audit log: who changed what, and what was refused."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
CREATE TABLE audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    actor_id   text NOT NULL,
    action     text NOT NULL,
    subject    text NOT NULL,
    -- Empty for what was done, else the reason why it was refused.
    refusal    text NOT NULL DEFAULT '',
    before     jsonb,
    after      jsonb,
    request_id text NOT NULL
);
"""

# Nobody but the owner changes or removes a line.
GRANTS = """
GRANT INSERT ON audit_log TO mooring_broker;
GRANT SELECT, INSERT ON audit_log TO mooring_registry;
GRANT SELECT ON audit_log TO mooring_operator;
"""


def upgrade() -> None:
    """Makes the table, then says who may what."""
    op.execute(TABLES)
    op.execute(GRANTS)
