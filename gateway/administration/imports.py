"""Importing existing devices and brokers: `/api/v1/devices/import` and `/api/v1/brokers/import`."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Annotated

from litestar import Router, post
from litestar.response import Stream
from mooring.broker.v1 import brokers_pb2
from mooring.registry.v1 import devices_pb2
from msgspec import Meta, Struct, structs

from chassis.errors import InvalidInput, from_item
from chassis.trust import Access
from gateway.administration.broker_types import NewBroker, fields_of
from gateway.administration.caller import Caller, CallerRequest
from gateway.administration.certificate_types import warnings_json
from gateway.administration.fields import Id, named
from gateway.administration.importing import (
    DryRun,
    Imported,
    ImportedRow,
    ImportEnd,
    Outcomes,
    imported,
)
from gateway.documentation import IDENTIFIER_PATTERN, LinesOf, documented
from gateway.examples import UUID
from gateway.uploads import MAX_BYTES, NDJSON, Form, receive

# The number of rows in one call.
DEVICES = 2_000
BROKERS = 100
# Files of brokers contain passwords, so they are never written to disk.
MAX_BROKER_BYTES = 16 * 1024 * 1024


class ImportedDevice(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A row of a file of devices. A field that is null or left out is unknown."""

    uuid: Annotated[str, documented(pattern=IDENTIFIER_PATTERN)]
    fleet_id: Annotated[
        str,
        documented(
            pattern=IDENTIFIER_PATTERN,
            description="The provisioning keys of this fleet register the device.",
        ),
    ]
    device_name: Annotated[str, documented(minLength=1, maxLength=255)] | None = None
    device_type: Annotated[str, documented(minLength=1, maxLength=64)] | None = None
    mqtt_username: Annotated[str, documented(minLength=1, maxLength=255)] | None = None
    password_hash: (
        Annotated[
            str, documented(maxLength=512, description="The password hash in the broker's form.")
        ]
        | None
    ) = None
    password_salt: Annotated[str, documented(maxLength=512)] | None = None
    password_algorithm: (
        Annotated[
            str,
            documented(
                examples=["sha256", "sha256_suffix", "pbkdf2_sha256", "pbkdf2_sha512"],
                description="The algorithm of a hexadecimal hash; other hashes name it themselves.",
            ),
        ]
        | None
    ) = None
    broker: (
        Annotated[str, documented(description="Pins the device to the broker with this name.")]
        | None
    ) = None
    mqtt_broker_id: (
        Annotated[Id, Meta(description="Pins the device to the broker with this id.")] | None
    ) = None
    region: Annotated[str, documented(maxLength=64)] | None = None
    latitude: Annotated[float, documented(minimum=-90, maximum=90)] | None = None
    longitude: Annotated[float, documented(minimum=-180, maximum=180)] | None = None
    mac_address: Annotated[str, documented(maxLength=128)] | None = None


def _device(row: ImportedDevice) -> devices_pb2.ImportedDevice:
    values = structs.asdict(row)
    latitude, longitude = values.pop("latitude"), values.pop("longitude")
    if latitude is not None:
        values["location"] = {"latitude": latitude, "longitude": longitude}
    return devices_pb2.ImportedDevice(**values)


def _check(row: ImportedDevice) -> None:
    """Raises `InvalidInput` for half a location."""
    pair = ("latitude", "longitude")
    for name, other in (pair, pair[::-1]):
        if getattr(row, name) is None and getattr(row, other) is not None:
            raise InvalidInput(f"is missing: it goes with {other}", field=name)


DEVICE_ROWS = Form(ImportedDevice, "uuid", _check)
BROKER_ROWS = Form(NewBroker, "name")


@post(
    "/devices/import",
    access=Access.OPERATOR,
    action="device.import",
    status_code=200,
    summary="Import devices",
    description=(
        "A file of up to 2,000,000 lines and 512 MiB, as one `ImportedDevice` a line or as CSV "
        "with a header line. The answer has an `ImportedRow` for each row, and an "
        "`ImportEnd` as its last line: an answer that ends without it is incomplete. "
        "Existing devices are not changed, so the same file can be sent again."
    ),
    upload=LinesOf((ImportedDevice,), ({"uuid": UUID, "fleet_id": "demo"},)),
    lines=LinesOf((ImportedRow, ImportEnd), (ImportedRow.EXAMPLE, ImportEnd.EXAMPLE)),
    media_type=NDJSON,
    request_max_body_size=MAX_BYTES,
    tags=["devices"],
)
async def import_devices(request: CallerRequest, dry_run: DryRun = False) -> Stream:
    content_type = request.headers.get("content-type", "")
    lines = await devices_imported(request.auth, request.stream(), content_type, is_dry_run=dry_run)
    return Stream(lines, media_type=NDJSON)


async def devices_imported(
    caller: Caller, stream: AsyncIterable[bytes], content_type: str, *, is_dry_run: bool
) -> AsyncIterator[bytes]:
    """The answer to a file of devices as NDJSON. Raises what `receive` and the registry raise."""

    async def ask(caller: Caller, rows: Sequence[ImportedDevice]) -> Outcomes:
        answer = await caller.ask_registry(
            caller.services.devices.ImportDevices,
            devices_pb2.ImportDevicesRequest(devices=map(_device, rows), dry_run=is_dry_run),
        )
        return [
            from_item(result.error) if result.HasField("error") else Imported(result.created)
            for result in answer.results
        ]

    # A call without rows refuses a caller that may not import, before the file is received.
    await ask(caller, ())
    upload = await receive(stream, content_type, DEVICE_ROWS)
    return imported(caller, upload, ask=ask, is_dry_run=is_dry_run, size=DEVICES)


@post(
    "/brokers/import",
    access=Access.OPERATOR,
    action="broker.import",
    status_code=200,
    summary="Import brokers",
    description=(
        "A file of up to 16 MiB, as one `NewBroker` a line or as CSV with a header line; CSV "
        "cannot have `ca_cert` and `labels`. The answer is like that to a file of devices. "
        "If a broker with the name exists, it is not changed."
    ),
    upload=LinesOf((NewBroker,), ({"name": "Second", "host": "mqtt.example.com", "port": 1883},)),
    lines=LinesOf(
        (ImportedRow, ImportEnd), ({**ImportedRow.EXAMPLE, "subject": "Second"}, ImportEnd.EXAMPLE)
    ),
    media_type=NDJSON,
    request_max_body_size=MAX_BROKER_BYTES,
    tags=["brokers"],
)
async def import_brokers(request: CallerRequest, dry_run: DryRun = False) -> Stream:
    async def ask(caller: Caller, rows: Sequence[NewBroker]) -> Outcomes:
        answer = await caller.ask_broker_service(
            caller.services.brokers.ImportBrokers,
            brokers_pb2.ImportBrokersRequest(
                brokers=[fields_of(named(row)) for row in rows], dry_run=dry_run
            ),
        )
        return [
            from_item(result.error)
            if result.HasField("error")
            else Imported(result.created, warnings_json(result.warnings))
            for result in answer.results
        ]

    await ask(request.auth, ())
    upload = await receive(
        request.stream(),
        request.headers.get("content-type", ""),
        BROKER_ROWS,
        bytes_in_memory=MAX_BROKER_BYTES,
    )
    lines = imported(
        request.auth,
        upload,
        ask=ask,
        is_dry_run=dry_run,
        size=BROKERS,
    )
    return Stream(lines, media_type=NDJSON)


ROUTES = Router("/", route_handlers=[import_devices, import_brokers])
