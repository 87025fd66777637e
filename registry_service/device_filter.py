"""A filter of devices, checked: what jobs and lists take."""

from typing import Any

from mooring.registry.v1 import jobs_pb2

from chassis.errors import InvalidInput
from chassis.validation import check_identifier, check_text
from registry_service.attributes import TEXTS


def conditions_of(wanted: jobs_pb2.DeviceFilter) -> dict[str, Any]:
    """The conditions that are set, by name. Raises `InvalidInput`."""
    conditions: dict[str, Any] = {field.name: value for field, value in wanted.ListFields()}
    for name, value in conditions.items():
        match name:
            case "fleet_id" | "uuid_prefix":
                check_identifier(f"filter.{name}", value)
            case "mqtt_broker_id" | "told_broker_id":
                if value < 0:
                    raise InvalidInput("must not be negative", field=f"filter.{name}")
            case _ if name in TEXTS:
                check_text(f"filter.{name}", value, longest=TEXTS[name].longest)
    return conditions
