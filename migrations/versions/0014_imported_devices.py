"""Devices that were imported from other systems, with the password hashes of their brokers."""

from alembic import op

revision = "0014"
down_revision = "0013"

# An imported device has no provisioning key, API key or credentials of Mooring until it registers;
# then it is like any other device.
TABLES = """
ALTER TABLE devices
    ALTER COLUMN provisioned_by_key_id DROP NOT NULL,
    ALTER COLUMN provisioned_at DROP NOT NULL,
    ALTER COLUMN credential_key_id DROP NOT NULL,
    ALTER COLUMN api_key_hash DROP NOT NULL,
    ADD COLUMN password_algorithm text NOT NULL DEFAULT 'sha256' CHECK (password_algorithm IN (
        'none', 'sha256', 'sha256_suffix', 'pbkdf2_sha256', 'pbkdf2_sha512', 'bcrypt',
        'mosquitto_sha512', 'mosquitto_pbkdf2'
    )),
    ADD CONSTRAINT imported_or_provisioned CHECK (
        num_nulls(provisioned_by_key_id, provisioned_at, credential_key_id, api_key_hash) IN (0, 4)
    );
-- Usernames of registered devices are unique already, because they are made of the uuid.
CREATE UNIQUE INDEX devices_imported_username ON devices (mqtt_username)
    WHERE provisioned_by_key_id IS NULL;
"""

VIEWS = """
CREATE OR REPLACE VIEW mqtt_users AS
    SELECT mqtt_username AS username, mqtt_password_hash AS password_hash,
           credential_salt AS salt, false AS is_superuser, password_algorithm AS algorithm
    FROM devices WHERE is_active AND password_algorithm <> 'none';
"""

GRANTS = """
GRANT SELECT (password_algorithm) ON devices TO mooring_operator;
GRANT SELECT (name) ON mqtt_broker_config TO mooring_registry;
"""


def upgrade() -> None:
    """Allows devices that have not registered, then grants the rights."""
    for part in (TABLES, VIEWS, GRANTS):
        op.execute(part)
