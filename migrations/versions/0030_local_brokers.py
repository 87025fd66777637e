"""Exempts brokers on this machine that were managed before there was an address policy."""

from alembic import op

revision = "0030"
down_revision = "0029"

# The endpoint is the broker's present one: if the broker moves to another address, the policy
# applies again. Only migrations write the table, so that no service can exempt a broker from
# BROKER_ADDRESS_POLICY.
TABLES = r"""
CREATE TABLE local_brokers_kept (
    broker_id integer PRIMARY KEY REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    -- host:port of a mosquitto, else management_url.
    endpoint  text NOT NULL
);
INSERT INTO local_brokers_kept
SELECT id, CASE management WHEN 'mosquitto' THEN host || ':' || port ELSE management_url END
FROM mqtt_broker_config
WHERE management <> '' AND CASE management
    WHEN 'mosquitto' THEN lower(host) IN ('localhost', '::1') OR host ~ '\A127\.[0-9.]+\Z'
    ELSE lower(management_url) ~ '\Ahttps?://(localhost|127\.[0-9.]+|\[::1\])([:/]|\Z)'
END;
GRANT SELECT ON local_brokers_kept TO mooring_broker, mooring_operator;
"""


def upgrade() -> None:
    """Makes the table, and records the existing brokers."""
    op.get_bind().exec_driver_sql(TABLES)
