"""Devices that operators name before they register: `/api/v1/expected-devices`."""

from typing import Annotated

from litestar import Router, delete, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from mooring.registry.v1 import expected_devices_pb2

from chassis.errors import InvalidInput, from_item
from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.expected_device_types import (
    Batch,
    ExpectedDevice,
    ExpectedDevicePage,
    Lines,
    NewExpectedDevice,
    RefusedItem,
    expected_json,
    expected_proto,
)
from gateway.administration.listing import DEFAULT_LIMIT, MAX_SEARCH, Cursor, Limit
from gateway.bodies import StrictJson
from gateway.documentation import IDENTIFIER_PATTERN

# The largest body: 10,000 devices with all fields, and with names in any script.
MAX_BATCH_BYTES = 8 * 1024 * 1024

DeviceUuid = Annotated[
    str,
    PathParameter(
        pattern=IDENTIFIER_PATTERN, description="The id that the device will register with."
    ),
]


async def _create(
    request: CallerRequest, given: list[NewExpectedDevice], item: str
) -> expected_devices_pb2.CreateExpectedDevicesResponse:
    """Calls the registry. Raises the error of an item, whose field gets the place in the body."""
    caller = request.auth
    try:
        return await caller.ask_registry(
            caller.services.expected_devices.CreateExpectedDevices,
            expected_devices_pb2.CreateExpectedDevicesRequest(
                expected_devices=map(expected_proto, given)
            ),
        )
    except InvalidInput as error:
        error.field = error.field.removeprefix(item)
        raise


@post(
    "/",
    access=WithinFleets(Access.OPERATOR),
    action="expected_device.create",
    summary="Expect a device",
    description="From now on, only provisioning keys of its fleet register the device.",
    dto=StrictJson[NewExpectedDevice],
    reasons=(
        "DEVICE_EXPECTED",
        "DEVICE_REGISTERED",
        "UUID_NOT_ALLOWED",
        "UUID_RESERVED",
        "TOKEN_USED_UP",
        "FLEET_UNKNOWN",
        "BROKER_UNKNOWN",
        "BROKER_NOT_ALLOWED",
    ),
)
async def create_expected_device(
    request: CallerRequest, data: JSONBody[NewExpectedDevice]
) -> ExpectedDevice:
    answer = await _create(request, [data], "expected_devices[0].")
    for refused in answer.refused:
        raise from_item(refused.error)
    return expected_json(answer.expected_device)


@post(
    "/batch",
    access=WithinFleets(Access.OPERATOR),
    action="expected_device.create",
    status_code=200,
    summary="Expect many devices",
    description=(
        "Up to 10,000 devices, as a JSON list or one JSON object a line (application/x-ndjson). "
        "If one is malformed, the whole request is refused, the error names its index, and "
        "nothing is stored. A device that is expected or registered already, or that names "
        "an unknown fleet or broker, is refused alone."
    ),
    dto=Lines,
    request_max_body_size=MAX_BATCH_BYTES,
)
async def create_expected_devices(
    request: CallerRequest, data: JSONBody[list[NewExpectedDevice]]
) -> Batch:
    answer = await _create(request, data, "expected_devices")
    return Batch(
        created=answer.created,
        refused=[
            RefusedItem(
                index=refused.index,
                uuid=data[refused.index].uuid,
                field=refused.error.field,
                reason=refused.error.reason,
                detail=refused.error.message,
            )
            for refused in answer.refused
        ],
    )


@get(
    "/",
    access=WithinFleets(Access.VIEWER),
    summary="List expected devices",
)
async def list_expected_devices(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    fleet_id: Annotated[
        str, QueryParameter(description="Only expected devices of this fleet.")
    ] = "",
    registered: Annotated[
        bool | None,
        QueryParameter(
            description="true: only devices that have registered; false: only the others."
        ),
    ] = None,
    uuid_prefix: Annotated[
        str,
        QueryParameter(
            max_length=MAX_SEARCH, description="Only devices whose uuid begins with this."
        ),
    ] = "",
) -> ExpectedDevicePage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.expected_devices.ListExpectedDevices,
        expected_devices_pb2.ListExpectedDevicesRequest(
            page_size=limit,
            cursor=cursor,
            fleet_id=fleet_id,
            registered=registered,
            uuid_prefix=uuid_prefix,
        ),
    )
    return ExpectedDevicePage(
        [expected_json(expected) for expected in answer.expected_devices],
        answer.next_cursor or None,
    )


@get(
    "/{uuid:str}",
    access=WithinFleets(Access.VIEWER),
    summary="Get an expected device",
    reasons=("EXPECTED_DEVICE_NOT_FOUND",),
)
async def get_expected_device(request: CallerRequest, uuid: DeviceUuid) -> ExpectedDevice:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.expected_devices.GetExpectedDevice,
        expected_devices_pb2.GetExpectedDeviceRequest(uuid=uuid),
    )
    return expected_json(answer.expected_device)


@delete(
    "/{uuid:str}",
    access=WithinFleets(Access.OPERATOR),
    action="expected_device.delete",
    summary="Delete an expected device",
    description="From now on, any provisioning key may register this uuid. A device that has "
    "registered stays.",
    reasons=("EXPECTED_DEVICE_NOT_FOUND",),
)
async def delete_expected_device(request: CallerRequest, uuid: DeviceUuid) -> None:
    caller = request.auth
    await caller.ask_registry(
        caller.services.expected_devices.DeleteExpectedDevice,
        expected_devices_pb2.DeleteExpectedDeviceRequest(uuid=uuid),
    )


ROUTES = Router(
    "/expected-devices",
    route_handlers=[
        create_expected_device,
        create_expected_devices,
        list_expected_devices,
        get_expected_device,
        delete_expected_device,
    ],
    tags=["expected devices"],
)
