"""The conditions of a filter of devices (`mooring.registry.v1.DeviceFilter`), as SQL.

The alias of the table is `device`; the parameter of each condition has the condition's name.
"""

from typing import NamedTuple

from registry_service.attributes import FILTERED


class Condition(NamedTuple):
    """A condition, and the type of its parameter."""

    type: str
    sql: str


CONDITIONS: dict[str, Condition] = {
    "fleet_id": Condition("text", "device.fleet_id = :fleet_id"),
    # 0 matches devices without a pin.
    "mqtt_broker_id": Condition(
        "integer",
        "(:mqtt_broker_id = 0 AND device.mqtt_broker_id IS NULL"
        " OR :mqtt_broker_id <> 0 AND device.mqtt_broker_id = :mqtt_broker_id)",
    ),
    "told_broker_id": Condition(
        "integer", "coalesce(device.told_broker_ids[1], 0) = :told_broker_id"
    ),
    "uuid_prefix": Condition("text", "device.uuid ^@ :uuid_prefix"),
    "is_active": Condition("boolean", "device.is_active = :is_active"),
    **{name: Condition("text", f"device.{name} = :{name}") for name in FILTERED},
}

# Whether a device matches; a parameter that is null matches all.
MATCHES = " AND ".join(
    f"(CAST(:{name} AS {condition.type}) IS NULL OR {condition.sql})"
    for name, condition in CONDITIONS.items()
)
