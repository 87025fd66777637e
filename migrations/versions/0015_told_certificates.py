"""An index of devices by the certificates of their last answer."""

from alembic import op

revision = "0015"
down_revision = "0014"

INDEX = """
-- Partial, so that a device without a CA has no entry.
CREATE INDEX devices_told ON devices ((told_broker_ids[1]), told_ca_ids, id)
    WHERE is_active AND told_ca_ids <> '{}';
"""

GRANTS = """
GRANT SELECT (id, is_active, told_broker_ids, told_ca_ids) ON devices TO mooring_broker;
"""


def upgrade() -> None:
    """Adds the index, and allows the broker service to read the column."""
    for part in (INDEX, GRANTS):
        op.execute(part)
