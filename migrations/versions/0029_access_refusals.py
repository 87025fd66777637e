"""The process that brokers ask records wrong broker secrets in the audit log."""

from alembic import op

revision = "0029"
down_revision = "0028"

# It may insert lines and read none; the column session_role shows which lines are from it.
UPGRADE = """
GRANT INSERT (actor, actor_id, action, subject, refusal, count, before, after, details, request_id,
              ticket)
    ON audit_log TO mooring_access;
"""


def upgrade() -> None:
    """Grants the right."""
    op.execute(UPGRADE)
