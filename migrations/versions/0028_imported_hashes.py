"""Devices can be imported with more kinds of password hashes."""

from alembic import op

revision = "0028"
down_revision = "0027"

ALGORITHMS = """
    'none', 'sha256', 'sha256_suffix', 'pbkdf2_sha256', 'pbkdf2_sha512', 'bcrypt',
    'mosquitto_sha512', 'mosquitto_pbkdf2', 'argon2id', 'go_auth_pbkdf2', 'rabbitmq_sha256',
    'rabbitmq_sha512'
"""

# All existing rows satisfy the narrower check, so PostgreSQL need not validate them.
UPGRADE = f"""
ALTER TABLE devices DROP CONSTRAINT devices_password_algorithm_check;
ALTER TABLE devices ADD CONSTRAINT devices_password_algorithm_check
    CHECK (password_algorithm IN ({ALGORITHMS})) NOT VALID;
"""


def upgrade() -> None:
    """Allows the algorithms."""
    op.execute(UPGRADE)
