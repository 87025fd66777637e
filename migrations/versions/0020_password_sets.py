"""A device's password is for the brokers that it was told together."""

from alembic import op

revision = "0020"
down_revision = "0019"

# Null where a salt was made for what the device was told last. That is so for most rows, and for
# all from before: the table is not rewritten, however many devices there are.
COLUMN = """
ALTER TABLE devices ADD COLUMN salt_broker_ids integer[];
"""

GRANTS = """
GRANT SELECT (salt_broker_ids) ON devices TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the column, then says who may read it."""
    op.execute(COLUMN)
    op.execute(GRANTS)
