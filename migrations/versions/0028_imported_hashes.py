"""More password hashes of other brokers are taken over."""

from alembic import op

revision = "0028"
down_revision = "0027"

ALGORITHMS = """
    'none', 'sha256', 'sha256_suffix', 'pbkdf2_sha256', 'pbkdf2_sha512', 'bcrypt',
    'mosquitto_sha512', 'mosquitto_pbkdf2', 'argon2id', 'go_auth_pbkdf2', 'rabbitmq_sha256',
    'rabbitmq_sha512'
"""

# What there is satisfies the narrower check, so no row is looked at.
UPGRADE = f"""
ALTER TABLE devices DROP CONSTRAINT devices_password_algorithm_check;
ALTER TABLE devices ADD CONSTRAINT devices_password_algorithm_check
    CHECK (password_algorithm IN ({ALGORITHMS})) NOT VALID;
"""


def upgrade() -> None:
    """Allows them."""
    op.execute(UPGRADE)
