"""A filter of devices, checked: what jobs, lists and counts take.

Its conditions are a JSON object, for jobs store them. A condition whose name begins with `not_` has
a list of values.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from mooring.registry.v1 import jobs_pb2

from chassis.errors import InvalidInput
from chassis.times import moment_of, timestamp_of
from chassis.validation import check_identifier, check_text
from registry_service.attributes import TEXTS

NOT = "not_"
MAX_EXCLUDED = 100
MAX_SEARCH = 255
FIELDS = jobs_pb2.DeviceFilter.DESCRIPTOR.fields
TIMES = tuple(field.name for field in FIELDS if field.message_type is not None)


def conditions_of(wanted: jobs_pb2.DeviceFilter) -> dict[str, Any]:
    """The conditions that are set, by name. Raises `InvalidInput`."""
    conditions: dict[str, Any] = {}
    for field, value in wanted.ListFields():
        where = f"filter.{field.name}"
        if field.name.startswith(NOT):
            if len(value) > MAX_EXCLUDED:
                raise InvalidInput(f"at most {MAX_EXCLUDED} values", field=where)
            name = field.name.removeprefix(NOT)
            conditions[field.name] = sorted({_checked(name, where, each) for each in value})
        elif field.name in TIMES:
            conditions[field.name] = _moment(wanted, field.name, where)
        else:
            conditions[field.name] = _checked(field.name, where, value)
    return _meaning(conditions)


def filter_of(conditions: Mapping[str, Any]) -> jobs_pb2.DeviceFilter:
    """The message whose conditions these are."""
    values = dict(conditions)
    for name in TIMES:
        if name in values:
            values[name] = timestamp_of(datetime.fromisoformat(values[name]))
    return jobs_pb2.DeviceFilter(**values)


def _meaning(conditions: dict[str, Any]) -> dict[str, Any]:
    """Without the searches for nothing."""
    excluded = [text for text in conditions.pop("not_search", ()) if text]
    if not conditions.get("search", "nothing"):
        del conditions["search"]
    return {**conditions, "not_search": excluded} if excluded else conditions


def _checked(name: str, where: str, value: Any) -> Any:
    match name:
        case "fleet_id" | "uuid_prefix":
            check_identifier(where, value)
        case "search":
            check_text(where, value, longest=MAX_SEARCH)
        case "provisioned_by_key_id":
            return _key_id(where, value)
        case "mqtt_broker_id" | "pool_id" | "told_broker_id" | "credential_key_id":
            if value < 0:
                raise InvalidInput("must not be negative", field=where)
        case _ if name in TEXTS:
            check_text(where, value, longest=TEXTS[name].longest)
    return value


def _key_id(where: str, value: str) -> str:
    """The id as PostgreSQL writes it; empty for none."""
    if not value:
        return value
    try:
        return str(UUID(value))
    except ValueError:
        raise InvalidInput("must be the id of a provisioning key", field=where) from None


def _moment(wanted: jobs_pb2.DeviceFilter, name: str, where: str) -> str:
    try:
        moment = moment_of(wanted, name)
    except InvalidInput as error:
        error.field = where
        raise
    return moment.isoformat() if moment else ""
