"""Registrations and refusals are counted by the day too, so that long ranges are read quickly."""

from alembic import op

revision = "0037"
down_revision = "0036"

STEPS = """
ALTER TABLE {table} DROP CONSTRAINT {table}_step_check;
ALTER TABLE {table} ADD CONSTRAINT {table}_step_check CHECK (step IN ('minute', 'hour', 'day'));
"""


def upgrade() -> None:
    """Allows rows for days; there are some from now on."""
    for table in ("registration_counts", "refusal_counts"):
        op.execute(STEPS.format(table=table))
