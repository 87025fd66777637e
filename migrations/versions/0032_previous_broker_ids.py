"""The password before is accepted only by the brokers that it was for."""

from alembic import op

revision = "0032"
down_revision = "0031"

# Null in the rows of before, whose passwords end within PREVIOUS_PASSWORD_S.
COLUMN = """
ALTER TABLE devices ADD COLUMN previous_broker_ids integer[];
"""

GRANTS = """
GRANT SELECT (previous_broker_ids) ON devices TO mooring_access, mooring_operator;
"""


def upgrade() -> None:
    """Adds the column, then says who may read it."""
    op.execute(COLUMN)
    op.execute(GRANTS)
