"""Devices that operators name before they register: `/api/v1/expected-devices`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec
from litestar import Router, delete, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from mooring.registry.v1 import expected_devices_pb2
from msgspec import Meta, Struct, structs

from chassis.errors import InvalidInput, from_item
from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.devices import DeviceLocation
from gateway.administration.fields import Id, moment_of, optional
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.bodies import StrictJson, decode, is_json
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import MOMENT
from gateway.text import utf8_of

# The size of 10,000 devices with all fields and names in any script.
MAX_BATCH_BYTES = 8 * 1024 * 1024
NDJSON = "application/x-ndjson"

DeviceUuid = Annotated[
    str,
    PathParameter(
        pattern=IDENTIFIER_PATTERN, description="The id that the device will register with."
    ),
]


class NewExpectedDevice(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A device that will register. A field that is set overrides the device's own; null leaves it
    to the device.
    """

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "uuid": "test-device-124",
        "fleet_id": "demo",
        "device_name": "The second",
        "mqtt_broker_id": 1,
    }

    uuid: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]
    fleet_id: Annotated[
        str,
        documented(
            pattern=IDENTIFIER_PATTERN,
            description="Only provisioning keys of this fleet register the device.",
        ),
    ]
    device_name: Annotated[str, documented(minLength=1, maxLength=255)] | None = None
    device_type: Annotated[str, documented(minLength=1, maxLength=64)] | None = None
    mqtt_broker_id: (
        Annotated[
            Id,
            Meta(
                description="Becomes the pin of the device, instead of the default "
                "broker of the key."
            ),
        ]
        | None
    ) = None
    region: Annotated[str, documented(maxLength=64)] | None = None
    location: DeviceLocation | None = None


class ExpectedDevice(NewExpectedDevice, kw_only=True, frozen=True):
    """An expected device."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "uuid": "test-device-124",
        "fleet_id": "demo",
        "device_name": "The second",
        "device_type": "raspberry-pi-4",
        "mqtt_broker_id": 1,
        "region": None,
        "location": None,
        "created_at": MOMENT,
        "registered_at": None,
    }

    created_at: datetime | None
    registered_at: Annotated[datetime, Meta(description="Null until the device registers.")] | (
        None
    )


class ExpectedDevicePage(Page[ExpectedDevice], frozen=True):
    """Expected devices, in the order of their uuids."""


class RefusedItem(Struct, kw_only=True, frozen=True):
    """An item of a batch that was refused."""

    index: Annotated[int, Meta(description="The index of the item, from 0.")]
    uuid: str
    field: str
    reason: Annotated[
        str,
        documented(
            examples=["DEVICE_EXPECTED", "DEVICE_REGISTERED", "FLEET_UNKNOWN", "BROKER_NOT_ALLOWED"]
        ),
    ]
    detail: str


class Batch(Struct, kw_only=True, frozen=True):
    """The result of a batch: all items that are not refused were created."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "created": 0,
        "refused": [
            {
                "index": 0,
                "uuid": "test-device-124",
                "field": "uuid",
                "reason": "DEVICE_EXPECTED",
                "detail": "a device with this uuid is expected already",
            }
        ],
    }

    created: int
    refused: list[RefusedItem]


class Lines(StrictJson[list[NewExpectedDevice]]):
    """A JSON list, or one object a line (application/x-ndjson)."""

    line = msgspec.json.Decoder(NewExpectedDevice)

    def decode_bytes(self, value: bytes) -> Any:
        """Called by Litestar for a body that is not empty."""
        content_type = self.asgi_connection.headers.get("content-type", "")
        if is_json(content_type) or content_type.partition(";")[0].strip().lower() != NDJSON:
            return super().decode_bytes(value)
        found = []
        for index, line in enumerate(filter(None, map(bytes.strip, utf8_of(value).split(b"\n")))):
            try:
                found.append(decode(self.line, line))
            except InvalidInput as error:
                error.field = f"[{index}].{error.field}"
                raise
        return found


def _json(expected: expected_devices_pb2.ExpectedDevice) -> ExpectedDevice:
    return ExpectedDevice(
        uuid=expected.uuid,
        fleet_id=expected.fleet_id,
        device_name=optional(expected, "device_name"),
        device_type=optional(expected, "device_type"),
        mqtt_broker_id=optional(expected, "mqtt_broker_id"),
        region=optional(expected, "region"),
        location=DeviceLocation(expected.location.latitude, expected.location.longitude)
        if expected.HasField("location")
        else None,
        created_at=moment_of(expected, "created_at"),
        registered_at=moment_of(expected, "registered_at"),
    )


def _proto(given: NewExpectedDevice) -> expected_devices_pb2.ExpectedDevice:
    values = structs.asdict(given)
    if given.location is not None:
        values["location"] = structs.asdict(given.location)
    return expected_devices_pb2.ExpectedDevice(**values)


async def _create(
    request: CallerRequest, given: list[NewExpectedDevice], item: str
) -> expected_devices_pb2.CreateExpectedDevicesResponse:
    """Raises the error of an item; the registry's name of a field becomes one below `item`."""
    caller = request.auth
    try:
        return await caller.ask_registry(
            caller.services.expected_devices.CreateExpectedDevices,
            expected_devices_pb2.CreateExpectedDevicesRequest(expected_devices=map(_proto, given)),
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
    return _json(answer.expected_device)


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
) -> ExpectedDevicePage:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.expected_devices.ListExpectedDevices,
        expected_devices_pb2.ListExpectedDevicesRequest(
            page_size=limit, cursor=cursor, fleet_id=fleet_id, registered=registered
        ),
    )
    return ExpectedDevicePage(
        [_json(expected) for expected in answer.expected_devices], answer.next_cursor or None
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
    return _json(answer.expected_device)


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
