"""The process that brokers ask writes which wrong secrets it was shown."""

from alembic import op

revision = "0029"
down_revision = "0028"

# It may insert lines and read none; the column session_role says whose they are.
UPGRADE = """
GRANT INSERT (actor, actor_id, action, subject, refusal, count, before, after, details, request_id,
              ticket)
    ON audit_log TO mooring_access;
"""


def upgrade() -> None:
    """Allows it."""
    op.execute(UPGRADE)
