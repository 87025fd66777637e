"""A filter of devices in the bodies of requests and answers."""

from datetime import datetime
from typing import Annotated, Any

from mooring.registry.v1 import jobs_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.administration.fields import Id, Moment, moment_of, named, timestamp
from gateway.documentation import IDENTIFIER_PATTERN, documented

# The ends of names of fields whose value may be none.
NULLABLE = ("broker_id", "pool_id", "key_id")


class DeviceFilter(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Selects the devices that match every field; without fields, all devices."""

    fleet_id: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)] | UnsetType = UNSET
    device_type: Annotated[str, documented(maxLength=64)] | UnsetType = UNSET
    region: Annotated[str, documented(maxLength=64)] | UnsetType = UNSET
    mqtt_broker_id: (
        Annotated[Id, Meta(description="Pinned to this broker; null: without a pin.")]
        | UnsetType
        | None
    ) = UNSET
    pool_id: (
        Annotated[Id, Meta(description="In this pool of its own; null: in none.")]
        | UnsetType
        | None
    ) = UNSET
    told_broker_id: (
        Annotated[Id, Meta(description="The broker of the last answer; null: no broker.")]
        | UnsetType
        | None
    ) = UNSET
    uuid_prefix: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)] | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    search: (
        Annotated[
            str,
            documented(maxLength=255),
            Meta(description="The beginning of the uuid, or of the name in upper or lower case."),
        ]
        | UnsetType
    ) = UNSET
    is_online: bool | UnsetType = UNSET
    is_pinned: bool | UnsetType = UNSET
    provisioned_by_key_id: (
        Annotated[
            str,
            Meta(description="The id of the provisioning key; null: imported, not registered yet."),
        ]
        | UnsetType
        | None
    ) = UNSET
    registered_since: (
        Annotated[Moment, Meta(description="Registered at this time or later.")] | UnsetType
    ) = UNSET
    registered_before: (
        Annotated[Moment, Meta(description="Registered before this time.")] | UnsetType
    ) = UNSET
    credential_key_id: (
        Annotated[Id, Meta(description="The server key of its credentials; null: none.")]
        | UnsetType
        | None
    ) = UNSET
    short_api_key: bool | UnsetType = UNSET
    not_fleet_id: (
        Annotated[
            list[Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]],
            Meta(description="A device with one of these does not match; so for all that follow."),
        ]
        | UnsetType
    ) = UNSET
    not_device_type: list[Annotated[str, documented(maxLength=64)]] | UnsetType = UNSET
    not_region: list[Annotated[str, documented(maxLength=64)]] | UnsetType = UNSET
    not_mqtt_broker_id: list[Id | None] | UnsetType = UNSET
    not_pool_id: list[Id | None] | UnsetType = UNSET
    not_told_broker_id: list[Id | None] | UnsetType = UNSET
    not_uuid_prefix: list[Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]] | UnsetType = (
        UNSET
    )
    not_search: list[Annotated[str, documented(maxLength=255)]] | UnsetType = UNSET
    not_provisioned_by_key_id: list[str | None] | UnsetType = UNSET
    not_credential_key_id: list[Id | None] | UnsetType = UNSET


def filter_proto(wanted: DeviceFilter | None) -> jobs_pb2.DeviceFilter | None:
    """The conditions that are named; null in JSON is 0 or the empty text there.

    Raises `InvalidInput`.
    """
    if wanted is None:
        return None
    values: dict[str, Any] = {}
    for name, value in named(wanted).items():
        if isinstance(value, list):
            values[name] = [_none(name) if one is None else one for one in value]
        elif isinstance(value, datetime):
            values[name] = timestamp(f"filter.{name}", value)
        else:
            values[name] = _none(name) if value is None else value
    return jobs_pb2.DeviceFilter(**values)


def _none(name: str) -> Any:
    """The value that stands for none."""
    return "" if name.endswith("provisioned_by_key_id") else 0


def filter_json(wanted: jobs_pb2.DeviceFilter) -> dict[str, Any]:
    """The conditions that are set."""
    conditions: dict[str, Any] = {}
    for field, value in wanted.ListFields():
        name = field.name
        if field.message_type is not None:
            conditions[name] = moment_of(wanted, name)
        elif name.startswith("not_"):
            conditions[name] = [_json_value(name, one) for one in value]
        else:
            conditions[name] = _json_value(name, value)
    return conditions


def _json_value(name: str, value: Any) -> Any:
    """Null for what stands for none."""
    return (value or None) if name.endswith(NULLABLE) else value
