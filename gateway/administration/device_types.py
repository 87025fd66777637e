"""Bodies of requests and answers about devices."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from mooring.registry.v1 import devices_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.administration.fields import Id, moment_of, optional
from gateway.administration.listing import Page
from gateway.documentation import documented
from gateway.examples import KEY_ID, MOMENT, UUID


class DeviceLocation(Struct, frozen=True, forbid_unknown_fields=True):
    """In degrees (WGS 84)."""

    latitude: Annotated[float, documented(minimum=-90, maximum=90)]
    longitude: Annotated[float, documented(minimum=-180, maximum=180)]


class DeviceChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The fields to change; a field that is left out keeps its value, null clears it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"mqtt_broker_id": 1, "device_name": "The first"}

    device_name: Annotated[str, documented(minLength=1, maxLength=255)] | UnsetType = UNSET
    device_type: Annotated[str, documented(minLength=1, maxLength=64)] | UnsetType = UNSET
    mqtt_broker_id: (
        Annotated[Id, Meta(description="Pins the device to this broker; null removes the pin.")]
        | UnsetType
        | None
    ) = UNSET
    pool_id: (
        Annotated[
            Id,
            Meta(description="This pool serves the device, unless it has a pin; null: no pool."),
        ]
        | UnsetType
        | None
    ) = UNSET
    is_active: bool | UnsetType = UNSET
    region: Annotated[str, documented(maxLength=64)] | UnsetType | None = UNSET
    location: DeviceLocation | UnsetType | None = UNSET
    reprovisioning_allowed: (
        Annotated[
            bool, Meta(description="Allows the device to register once more with another API key.")
        ]
        | UnsetType
    ) = UNSET


class Device(Struct, kw_only=True, frozen=True):
    """A device, without its credentials."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 1,
        "uuid": UUID,
        "device_name": "Test Device",
        "device_type": "raspberry-pi-4",
        "fleet_id": "demo",
        "mqtt_broker_id": None,
        "pool_id": None,
        "is_active": True,
        "region": None,
        "location": None,
        "reprovisioning_allowed": False,
        "mqtt_username": f"device_{UUID}",
        "application_id": "",
        "mac_address": "",
        "os_version": "",
        "agent_version": "",
        "is_online": False,
        "last_seen_at": None,
        "provisioned_at": MOMENT,
        "provisioned_by_key_id": KEY_ID,
        "told_broker_ids": [1],
        "told_at": MOMENT,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "has_short_api_key": False,
        "revision": 1,
        "home_broker_id": None,
    }

    id: int
    uuid: str
    device_name: str
    device_type: str
    fleet_id: str
    mqtt_broker_id: int | None
    pool_id: int | None
    is_active: bool
    region: str | None
    location: DeviceLocation | None
    reprovisioning_allowed: bool
    mqtt_username: str
    application_id: str
    mac_address: str
    os_version: str
    agent_version: str
    is_online: bool
    last_seen_at: datetime | None
    provisioned_at: datetime | None
    provisioned_by_key_id: (
        Annotated[
            str, Meta(description="Null if the device was imported and has not registered yet.")
        ]
        | None
    )
    told_broker_ids: list[int]
    told_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    has_short_api_key: Annotated[
        bool,
        Meta(
            description="Whether its API key has fewer than 32 characters, so that it may be "
            "guessed."
        ),
    ]
    revision: Annotated[
        int,
        Meta(
            description="Another number if one of the fields that can be changed has another value."
        ),
    ]
    home_broker_id: Annotated[
        int | None,
        Meta(
            description="The member of a pool to which it belongs; null if none was chosen yet. "
            "It counts only while that pool serves the device."
        ),
    ]


class DevicePage(Page[Device], frozen=True):
    """A page may have fewer devices than `limit`, or none, though `next_cursor` is not null: a
    request reads a limited number of devices that do not match.
    """


# Each of these members is a field of the same name in the device or in `DeviceFields`, where an
# unset field is null. `device_json` has rules for the others.
_RULED = {"location", "provisioned_by_key_id", "told_broker_ids", "home_broker_id"}
_SAME, _SAME_OR_NULL = (
    tuple(
        name
        for name in Device.__struct_fields__
        if name not in _RULED
        and name in message.DESCRIPTOR.fields_by_name
        and message.DESCRIPTOR.fields_by_name[name].message_type is None
    )
    for message in (devices_pb2.Device, devices_pb2.DeviceFields)
)


def device_json(device: devices_pb2.Device) -> Device:
    """As the registry has it."""
    fields = device.fields
    return Device(
        **{name: getattr(device, name) for name in _SAME},
        **{name: optional(fields, name) for name in _SAME_OR_NULL},
        location=DeviceLocation(fields.location.latitude, fields.location.longitude)
        if fields.HasField("location")
        else None,
        last_seen_at=moment_of(device, "last_seen_at"),
        provisioned_at=moment_of(device, "provisioned_at"),
        provisioned_by_key_id=device.provisioned_by_key_id or None,
        told_broker_ids=list(device.told_broker_ids),
        home_broker_id=device.home_broker_id or None,
        told_at=moment_of(device, "told_at"),
        created_at=moment_of(device, "created_at"),
        updated_at=moment_of(device, "updated_at"),
    )


class FacetValue(Struct, kw_only=True, frozen=True):
    """How many devices have a value."""

    value: Annotated[
        str | int | None, Meta(description="A text, or the id of a broker; null: none.")
    ]
    count: int
    is_capped: Annotated[bool, Meta(description="Whether there may be more.")]


class Facet(Struct, kw_only=True, frozen=True):
    """The values of a field, the most frequent first."""

    values: list[FacetValue]
    is_truncated: Annotated[bool, Meta(description="Whether values may be missing.")]


class DeviceCount(Struct, kw_only=True, frozen=True):
    """How many devices match."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"count": 1, "is_capped": False, "facets": {}}

    count: int
    is_capped: Annotated[
        bool,
        Meta(
            description="Whether there may be more: counting ends at 10,000, or after a limited "
            "number of devices that do not match."
        ),
    ]
    facets: Annotated[
        dict[str, Facet],
        Meta(
            description="By the names in the query. The conditions on a field do not restrict its "
            "own values."
        ),
    ]


def count_json(answer: devices_pb2.CountDevicesResponse) -> DeviceCount:
    """As the registry has it."""
    return DeviceCount(
        count=answer.count,
        is_capped=answer.is_capped,
        facets={_facet_name(facet.facet): _facet(facet) for facet in answer.facets},
    )


def _facet_name(facet: devices_pb2.DeviceFacet.ValueType) -> str:
    return devices_pb2.DeviceFacet.Name(facet).removeprefix("DEVICE_FACET_").lower()


def _facet(facet: devices_pb2.FacetCounts) -> Facet:
    is_number = _facet_name(facet.facet).endswith("_broker_id")
    return Facet(
        values=[
            FacetValue(
                value=(int(one.value) if is_number else one.value) or None,
                count=one.count,
                is_capped=one.is_capped,
            )
            for one in facet.values
        ],
        is_truncated=facet.is_truncated,
    )
