"""The conditions of a filter of devices (`mooring.registry.v1.DeviceFilter`), as SQL.

The alias of the table is `device`; the parameter of each condition has the condition's name.
"""

from collections.abc import Iterable

from registry_service.attributes import FILTERED

# The name of a device as it is searched for. Which letters are the same in upper and lower case is
# the database's to say; "C" is the order in which texts with the same beginning are neighbours.
NAME = 'lower(device.device_name) COLLATE "C"'

# What a condition compares: the type and the value. Each can be excluded too. 0 and the empty text
# stand for none.
VALUES: dict[str, tuple[str, str]] = {
    "fleet_id": ("text", "device.fleet_id"),
    **{name: ("text", f"device.{name}") for name in FILTERED},
    "mqtt_broker_id": ("integer", "coalesce(device.mqtt_broker_id, 0)"),
    "pool_id": ("integer", "coalesce(device.pool_id, 0)"),
    "told_broker_id": ("integer", "coalesce(device.told_broker_ids[1], 0)"),
    "provisioned_by_key_id": ("text", "coalesce(CAST(device.provisioned_by_key_id AS text), '')"),
    "credential_key_id": ("integer", "coalesce(device.credential_key_id, 0)"),
}

SEARCHED = f"(device.uuid ^@ {{text}} OR {NAME} ^@ lower({{text}}))"

CONDITIONS: dict[str, str] = {
    **{name: f"{value} = CAST(:{name} AS {kind})" for name, (kind, value) in VALUES.items()},
    # Indexes find these devices.
    **{
        name: (
            f"(:{name} = 0 AND device.{name} IS NULL OR :{name} <> 0 AND device.{name} = :{name})"
        )
        for name in ("mqtt_broker_id", "pool_id")
    },
    "uuid_prefix": "device.uuid ^@ CAST(:uuid_prefix AS text)",
    "search": SEARCHED.format(text="CAST(:search AS text)"),
    "is_active": "device.is_active = :is_active",
    "is_online": "device.is_online = :is_online",
    "is_pinned": "(device.mqtt_broker_id IS NOT NULL) = :is_pinned",
    "registered_since": "device.provisioned_at >= CAST(:registered_since AS timestamptz)",
    "registered_before": "device.provisioned_at < CAST(:registered_before AS timestamptz)",
    "short_api_key": "device.has_short_api_key = :short_api_key",
    **{
        f"not_{name}": f"{value} <> ALL (CAST(:not_{name} AS {kind}[]))"
        for name, (kind, value) in VALUES.items()
    },
    "not_uuid_prefix": "NOT device.uuid ^@ ANY (CAST(:not_uuid_prefix AS text[]))",
    "not_search": (
        "NOT EXISTS (SELECT FROM unnest(CAST(:not_search AS text[])) AS excluded (text)"
        f" WHERE {SEARCHED.format(text='excluded.text')})"
    ),
}


def matching(names: Iterable[str]) -> str:
    """Whether a device matches each of the conditions with these names."""
    return " AND ".join(["true", *(CONDITIONS[name] for name in names)])
