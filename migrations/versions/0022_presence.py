"""Orders brokers' notices of connections, and limits them to the broker's own devices."""

from alembic import op

revision = "0022"
down_revision = "0021"

UPGRADE = """
-- The broker that reported is_online, and the time of its report by its clock. There is no foreign
-- key, because each notice would have to check it.
ALTER TABLE devices ADD COLUMN presence_broker_id integer, ADD COLUMN presence_at timestamptz;
GRANT SELECT (presence_broker_id, presence_at), UPDATE (presence_broker_id, presence_at)
    ON devices TO mooring_access;
"""


def upgrade() -> None:
    """Adds two columns."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drops them."""
    op.execute("ALTER TABLE devices DROP COLUMN presence_broker_id, DROP COLUMN presence_at")
