"""The previous password is accepted only by the brokers that it was made for."""

from alembic import op

revision = "0032"
down_revision = "0031"

# Null in existing rows, whose previous passwords expire within PREVIOUS_PASSWORD_S.
COLUMN = """
ALTER TABLE devices ADD COLUMN previous_broker_ids integer[];
"""

GRANTS = """
GRANT SELECT (previous_broker_ids) ON devices TO mooring_access, mooring_operator;
"""


def upgrade() -> None:
    """Adds the column, then grants the rights."""
    op.execute(COLUMN)
    op.execute(GRANTS)
