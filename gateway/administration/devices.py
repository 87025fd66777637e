"""The devices, for administrators: `/api/v1/devices`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import HttpMethod, Router, delete, get, post, route
from litestar.params import JSONBody, PathParameter, QueryParameter
from mooring.registry.v1 import devices_pb2, jobs_pb2
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from chassis.errors import InvalidInput
from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import MAX_INT32, Id, mask, moment_of, named, optional, present
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import KEY_ID, MOMENT, UUID

DeviceUuid = Annotated[
    str,
    PathParameter(
        pattern=IDENTIFIER_PATTERN, description="The id that the device chose for itself."
    ),
]


OnlyText = Annotated[
    str | None, QueryParameter(description="Only those with this text; empty: those without one.")
]


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
    }

    id: int
    uuid: str
    device_name: str
    device_type: str
    fleet_id: str
    mqtt_broker_id: int | None
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


class DevicePage(Page[Device], frozen=True):
    """Devices, in the order of their ids."""


# Each of these members is a field of the same name in the device or in `DeviceFields`, where an
# unset field is null. `_json` has rules for the others.
_RULED = {"location", "provisioned_by_key_id", "told_broker_ids"}
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


def _json(device: devices_pb2.Device) -> Device:
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
        told_at=moment_of(device, "told_at"),
        created_at=moment_of(device, "created_at"),
        updated_at=moment_of(device, "updated_at"),
    )


def _fields(values: dict[str, Any]) -> devices_pb2.DeviceFields:
    given = present(values)
    if "location" in given:
        given["location"] = structs.asdict(given["location"])
    return devices_pb2.DeviceFields(**given)


@get(
    "/",
    access=WithinFleets(Access.VIEWER),
    summary="List devices",
)
async def list_devices(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    fleet_id: Annotated[str, QueryParameter(description="Only devices of this fleet.")] = "",
    credential_key_id: Annotated[
        int | None,
        QueryParameter(
            ge=1,
            le=MAX_INT32,
            description="Only devices whose credentials were made with this server key.",
        ),
    ] = None,
    short_api_key: Annotated[
        bool | None,
        QueryParameter(
            description="true: only devices with short API keys; false: only the others."
        ),
    ] = None,
    device_type: OnlyText = None,
    region: OnlyText = None,
) -> DevicePage:
    caller = request.auth
    try:
        answer = await caller.ask_registry(
            caller.services.devices.ListDevices,
            devices_pb2.ListDevicesRequest(
                page_size=limit,
                cursor=cursor,
                fleet_id=fleet_id,
                credential_key_id=credential_key_id,
                short_api_key=short_api_key,
                filter=jobs_pb2.DeviceFilter(device_type=device_type, region=region),
            ),
        )
    except InvalidInput as error:
        error.field = error.field.removeprefix("filter.")
        raise
    return DevicePage([_json(device) for device in answer.devices], answer.next_cursor or None)


@get(
    "/{uuid:str}",
    access=WithinFleets(Access.VIEWER),
    summary="Get a device",
    reasons=("DEVICE_NOT_FOUND",),
)
async def get_device(request: CallerRequest, uuid: DeviceUuid) -> Device:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.devices.GetDevice, devices_pb2.GetDeviceRequest(uuid=uuid)
    )
    return _json(answer.device)


@route(
    "/{uuid:str}",
    access=WithinFleets(Access.OPERATOR),
    action="device.update",
    # docs/note.md uses PUT with some of the fields; PUT means the same as PATCH here.
    http_method=[HttpMethod.PUT, HttpMethod.PATCH],
    status_code=200,
    summary="Change a device",
    description="A field that is left out keeps its value, with PUT and with PATCH.",
    dto=StrictJson[DeviceChange],
    reasons=("DEVICE_NOT_FOUND", "BROKER_UNKNOWN", "BROKER_NOT_ALLOWED"),
)
async def update_device(
    request: CallerRequest, uuid: DeviceUuid, data: JSONBody[DeviceChange]
) -> Device:
    caller = request.auth
    values = named(data)
    answer = await caller.ask_registry(
        caller.services.devices.UpdateDevice,
        devices_pb2.UpdateDeviceRequest(
            uuid=uuid, fields=_fields(values), update_mask=mask(values)
        ),
    )
    return _json(answer.device)


@delete(
    "/{uuid:str}",
    access=WithinFleets(Access.OPERATOR),
    action="device.delete",
    summary="Delete a device",
    description="Deletes its credentials too: a device that registers again gets new ones.",
    reasons=("DEVICE_NOT_FOUND",),
)
async def delete_device(request: CallerRequest, uuid: DeviceUuid) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.devices.DeleteDevice, devices_pb2.DeleteDeviceRequest(uuid=uuid)
    )


@post(
    "/{uuid:str}/credentials/revoke",
    access=WithinFleets(Access.OPERATOR),
    action="device.revoke_credentials",
    summary="End a device's MQTT password",
    description="Ends the present password and the previous one at once. The device gets a new "
    "password when it asks where to connect, or registers.",
    status_code=204,
    reasons=("DEVICE_NOT_FOUND",),
)
async def revoke_credentials(request: CallerRequest, uuid: DeviceUuid) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.devices.RevokeCredentials,
        devices_pb2.RevokeCredentialsRequest(uuid=uuid),
    )


ROUTES = Router(
    "/devices",
    route_handlers=[list_devices, get_device, update_device, delete_device, revoke_credentials],
    tags=["devices"],
)
