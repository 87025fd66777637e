"""Brokers' notices are put in order, and are for their own devices."""

from alembic import op

revision = "0022"
down_revision = "0021"

UPGRADE = """
-- The broker that is_online is from, and the moment of its clock at which that was so. Without a
-- foreign key, which each notice would have to check.
ALTER TABLE devices ADD COLUMN presence_broker_id integer, ADD COLUMN presence_at timestamptz;
GRANT SELECT (presence_broker_id, presence_at), UPDATE (presence_broker_id, presence_at)
    ON devices TO mooring_access;
"""


def upgrade() -> None:
    """Adds two columns."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Takes them away."""
    op.execute("ALTER TABLE devices DROP COLUMN presence_broker_id, DROP COLUMN presence_at")
