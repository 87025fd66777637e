"""Commands that make the first admin token wait for each other at a row of `turns`."""

from alembic import op

revision = "0035"
down_revision = "0034"

# As in 0031, the right to update allows no change, because all allowed names are taken.
ROW = """
ALTER TABLE turns DROP CONSTRAINT turns_name_check;
ALTER TABLE turns ADD CONSTRAINT turns_name_check CHECK (name IN
    ('placement', 'device_counts', 'broker_secrets', 'usernames', 'first_admin'));
INSERT INTO turns VALUES ('first_admin');
"""


def upgrade() -> None:
    """Adds the row."""
    op.execute(ROW)
