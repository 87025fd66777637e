"""Which devices were told which certificates, a page at a time."""

from alembic import op

revision = "0015"
down_revision = "0014"

INDEX = """
-- Partial: a device that was told no CA costs it nothing.
CREATE INDEX devices_told ON devices ((told_broker_ids[1]), told_ca_ids, id)
    WHERE is_active AND told_ca_ids <> '{}';
"""

GRANTS = """
GRANT SELECT (id, is_active, told_broker_ids, told_ca_ids) ON devices TO mooring_broker;
"""


def upgrade() -> None:
    """Adds the index, and lets the broker service read it."""
    for part in (INDEX, GRANTS):
        op.execute(part)
