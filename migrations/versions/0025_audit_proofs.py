"""A line of the audit log records the role that wrote it, and the ticket of the person."""

from alembic import op

revision = "0025"
down_revision = "0024"

# PostgreSQL evaluates the default when a line is written. It is set after the column is added, so
# that existing lines have none: their role is not known. The services' roles may not insert into
# the column, so it is true for every line that they write. A default, unlike a trigger, does not
# overwrite the value in a copy of the log.
COLUMNS = """
ALTER TABLE audit_log ADD COLUMN session_role text, ADD COLUMN ticket bytea;
ALTER TABLE audit_log ALTER COLUMN session_role SET DEFAULT session_user;
-- The ticket of the person for whom a job runs, because a job runs for longer than a ticket is
-- valid.
ALTER TABLE jobs ADD COLUMN ticket bytea;
"""

GRANTS = """
GRANT INSERT (ticket) ON audit_log TO mooring_broker, mooring_registry;
"""


def upgrade() -> None:
    """Adds the columns, then grants the rights."""
    op.execute(COLUMNS)
    op.execute(GRANTS)
