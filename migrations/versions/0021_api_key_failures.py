"""Counts wrong device API keys, and records which keys are short."""

from alembic import op

revision = "0021"
down_revision = "0020"

TABLES = """
-- Failures in periods: of a device from one address, of a device from all addresses (the address is
-- empty), of an address over all devices (the uuid is empty), and of the rest that is not counted
-- separately (both are empty).
CREATE TABLE api_key_failures (
    began_at    timestamptz NOT NULL,
    device_uuid text COLLATE "C" NOT NULL,
    address     text COLLATE "C" NOT NULL,
    failures    integer NOT NULL CHECK (failures > 0),
    PRIMARY KEY (began_at, device_uuid, address)
);

ALTER TABLE devices
    ADD COLUMN proved_from text,
    ADD COLUMN has_short_api_key boolean NOT NULL DEFAULT false,
    ADD COLUMN rotations integer NOT NULL DEFAULT 0,
    ADD COLUMN rotations_since timestamptz;
CREATE INDEX devices_short_api_key ON devices (id) WHERE has_short_api_key;
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON api_key_failures TO mooring_registry;
GRANT SELECT ON api_key_failures TO mooring_operator;
GRANT SELECT (proved_from, has_short_api_key, rotations, rotations_since)
    ON devices TO mooring_operator;
"""


def upgrade() -> None:
    """Makes the table and the columns, then grants the rights."""
    op.execute(TABLES)
    op.execute(GRANTS)
