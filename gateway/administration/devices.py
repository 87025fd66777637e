"""The devices, for administrators: `/api/v1/devices`."""

from typing import Annotated, Any

from litestar import HttpMethod, Response, Router, delete, get, post, route
from litestar.params import JSONBody, PathParameter
from mooring.registry.v1 import devices_pb2
from msgspec import structs

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.device_lists import count_devices, list_devices
from gateway.administration.device_types import Device, DeviceChange, device_json
from gateway.administration.fields import mask, named, present
from gateway.administration.preconditions import IF_REVISION, IfRevision, tagged
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN

DeviceUuid = Annotated[
    str,
    PathParameter(
        pattern=IDENTIFIER_PATTERN, description="The id that the device chose for itself."
    ),
]


def _fields(values: dict[str, Any]) -> devices_pb2.DeviceFields:
    given = present(values)
    if "location" in given:
        given["location"] = structs.asdict(given["location"])
    return devices_pb2.DeviceFields(**given)


def _answer(device: devices_pb2.Device) -> Response[Device]:
    """The registry's device as JSON, with its `ETag`."""
    return tagged(device_json(device), device.revision)


@get(
    "/{uuid:str}",
    access=WithinFleets(Access.VIEWER),
    summary="Get a device",
    reasons=("DEVICE_NOT_FOUND",),
)
async def get_device(request: CallerRequest, uuid: DeviceUuid) -> Response[Device]:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.devices.GetDevice, devices_pb2.GetDeviceRequest(uuid=uuid)
    )
    return _answer(answer.device)


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
    dependencies=IF_REVISION,
    reasons=("DEVICE_NOT_FOUND", "BROKER_UNKNOWN", "BROKER_NOT_ALLOWED", "POOL_UNKNOWN"),
)
async def update_device(
    request: CallerRequest,
    uuid: DeviceUuid,
    data: JSONBody[DeviceChange],
    if_revision: IfRevision,
) -> Response[Device]:
    caller = request.auth
    values = named(data)
    answer = await caller.ask_registry(
        caller.services.devices.UpdateDevice,
        devices_pb2.UpdateDeviceRequest(
            uuid=uuid,
            fields=_fields(values),
            update_mask=mask(values),
            if_revision=if_revision,
        ),
    )
    return _answer(answer.device)


@delete(
    "/{uuid:str}",
    access=WithinFleets(Access.OPERATOR),
    action="device.delete",
    summary="Delete a device",
    description="Deletes its credentials too: a device that registers again gets new ones.",
    dependencies=IF_REVISION,
    reasons=("DEVICE_NOT_FOUND",),
)
async def delete_device(request: CallerRequest, uuid: DeviceUuid, if_revision: IfRevision) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.devices.DeleteDevice,
        devices_pb2.DeleteDeviceRequest(uuid=uuid, if_revision=if_revision),
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
    route_handlers=[
        list_devices,
        count_devices,
        get_device,
        update_device,
        delete_device,
        revoke_credentials,
    ],
    tags=["devices"],
)
