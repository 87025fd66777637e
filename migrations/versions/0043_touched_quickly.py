"""The function that every update of a device calls sets no search path."""

from alembic import op

revision = "0043"
down_revision = "0042"

# Setting it takes longer than the function itself, for every row of a job. The only name in the
# function has its schema, and it runs with the rights of its caller.
FUNCTION = "ALTER FUNCTION touch_updated_at() RESET search_path"


def upgrade() -> None:
    """Removes the setting."""
    op.execute(FUNCTION)
