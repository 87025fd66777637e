"""Expected devices as people write and read them."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec
from mooring.registry.v1 import expected_devices_pb2
from msgspec import Meta, Struct, structs

from chassis.errors import InvalidInput
from gateway.administration.device_types import DeviceLocation
from gateway.administration.fields import Id, moment_of, optional
from gateway.administration.listing import Page
from gateway.bodies import StrictJson, decode, is_json
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import MOMENT
from gateway.text import utf8_of

NDJSON = "application/x-ndjson"


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
    """A JSON list, or one object on each line (application/x-ndjson)."""

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


def expected_json(expected: expected_devices_pb2.ExpectedDevice) -> ExpectedDevice:
    """The registry's expected device as JSON."""
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


def expected_proto(given: NewExpectedDevice) -> expected_devices_pb2.ExpectedDevice:
    """An expected device as a message for the registry."""
    values = structs.asdict(given)
    if given.location is not None:
        values["location"] = structs.asdict(given.location)
    return expected_devices_pb2.ExpectedDevice(**values)
