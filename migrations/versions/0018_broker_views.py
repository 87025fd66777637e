"""Views for brokers that read SQL: the clients that may connect to each broker."""

from alembic import op

revision = "0018"
down_revision = "0017"

VIEWS = """
-- The clients that may connect now. There is an index on `found_by`. For a registered device it is
-- the uuid, because an index on all usernames would slow down registrations.
CREATE VIEW mqtt_devices AS
    SELECT device.uuid, device.mqtt_username AS username,
           device.mqtt_password_hash AS password_hash, device.credential_salt AS salt,
           device.password_algorithm AS algorithm,
           device.told_broker_ids AS broker_ids, device.uuid AS found_by
    FROM devices AS device JOIN fleets AS fleet ON fleet.id = device.fleet_id
    WHERE device.is_active AND fleet.is_active AND device.provisioned_by_key_id IS NOT NULL
    UNION ALL
    SELECT device.uuid, device.mqtt_username, device.mqtt_password_hash, device.credential_salt,
           device.password_algorithm,
           ARRAY[coalesce(device.mqtt_broker_id, fleet.mqtt_broker_id)], device.mqtt_username
    FROM devices AS device JOIN fleets AS fleet ON fleet.id = device.fleet_id
    WHERE device.is_active AND fleet.is_active AND device.provisioned_by_key_id IS NULL;
CREATE VIEW mqtt_accounts AS
    SELECT username, password_hash, password_salt AS salt, publish, subscribe,
           coalesce(broker_ids, ARRAY(SELECT id FROM mqtt_broker_config)) AS broker_ids,
           username AS found_by
    FROM service_accounts WHERE is_active AND (expires_at IS NULL OR expires_at > now());

-- Brokers that read SQL query: WHERE username = $1 AND found_by IN ($1, substr($1, 8)) AND <their
-- id> = ANY (broker_ids).
CREATE OR REPLACE VIEW mqtt_users AS
    SELECT username, password_hash, salt, false AS is_superuser, algorithm, broker_ids, found_by
    FROM mqtt_devices WHERE algorithm <> 'none'
    UNION ALL
    SELECT username, password_hash, salt, false, 'sha256', broker_ids, found_by FROM mqtt_accounts;

-- access: 1 subscribe, 2 publish, 3 both.
CREATE OR REPLACE VIEW mqtt_acls AS
    SELECT username, 'iot/device/' || uuid || '/#' AS topic, 3 AS access, broker_ids, found_by
    FROM mqtt_devices
    UNION ALL
    SELECT username, unnest(subscribe), 1, broker_ids, found_by FROM mqtt_accounts
    UNION ALL
    SELECT username, unnest(publish), 2, broker_ids, found_by FROM mqtt_accounts;
"""


def upgrade() -> None:
    """Makes the views again, for their readers."""
    op.execute(VIEWS)
