"""What journeys find in the installation."""

import secrets
from typing import Any

from tests.browser.journeys.installation import Installation

DEVICES = """
INSERT INTO devices (uuid, device_name, device_type, fleet_id, mqtt_username, mqtt_password_hash,
                     credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id,
                     told_broker_ids, told_at)
SELECT %s || n, 'Crowd ' || n, CASE WHEN n %% 3 = 0 THEN 'esp32' ELSE 'gateway-2' END,
       key.fleet_id, 'device_' || %s || n, '', '', 1, '', key.id, ARRAY[%s]::integer[], now()
FROM generate_series(1, %s) AS n, provisioning_keys AS key WHERE key.key_hash = sha256(%s::bytea)
"""


def unique(text: str) -> str:
    """A name that no other journey uses."""
    return f"{text}-{secrets.token_hex(3)}"


async def broker(installation: Installation, **fields: Any) -> Any:
    """A new broker, which devices cannot reach."""
    given = {"name": unique("Hall"), "host": "hall.example.com", "port": 1883, **fields}
    return await installation.made("/brokers", **given)


async def fleet(installation: Installation, **fields: Any) -> tuple[str, str]:
    """The id of a new fleet, and a key for it."""
    name = unique("fleet")
    await installation.made("/fleets", id=name, name=name.capitalize(), **fields)
    key = await installation.made("/provisioning-keys", fleet_id=name)
    return name, key["key"]


async def devices(installation: Installation, prefix: str, count: int) -> str:
    """Writes many devices of a new fleet, and returns the fleet. Their uuids are `prefix` and a
    number.

    They have got a broker that Mooring does not manage, so that no broker has to hold them.
    """
    name, key = await fleet(installation)
    told = (await broker(installation))["id"]
    installation.database.execute(DEVICES, prefix, prefix, told, count, key)
    return name
