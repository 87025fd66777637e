"""A device's password is valid at the brokers of the answer that it was made for."""

from alembic import op

revision = "0020"
down_revision = "0019"

# Null if the salt was made for the device's last answer. That is so for most rows, and for all
# existing ones, so that the table is not rewritten.
COLUMN = """
ALTER TABLE devices ADD COLUMN salt_broker_ids integer[];
"""

GRANTS = """
GRANT SELECT (salt_broker_ids) ON devices TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the column, then grants the rights."""
    op.execute(COLUMN)
    op.execute(GRANTS)
