"""A line of the audit log says which role wrote it, and keeps the ticket of its person."""

from alembic import op

revision = "0025"
down_revision = "0024"

# The default is evaluated when a line is written. It is set after the column is added, so that
# lines from before have none: nobody knows who wrote them. The services' roles may not insert into
# the column, so what is in it is true of every line that they write; and a copy of the log keeps
# what it says, which a trigger would overwrite.
COLUMNS = """
ALTER TABLE audit_log ADD COLUMN session_role text, ADD COLUMN ticket bytea;
ALTER TABLE audit_log ALTER COLUMN session_role SET DEFAULT session_user;
-- Of the person in whose name a job runs, which takes longer than a ticket is good.
ALTER TABLE jobs ADD COLUMN ticket bytea;
"""

GRANTS = """
GRANT INSERT (ticket) ON audit_log TO mooring_broker, mooring_registry;
"""


def upgrade() -> None:
    """Adds the columns, then says who may write them."""
    op.execute(COLUMNS)
    op.execute(GRANTS)
