"""The two paths of devices. Their JSON is camelCase."""

from typing import Annotated, Any

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter
from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import registration_pb2
from msgspec import Struct
from msgspec.structs import fields

from chassis.errors import LostRace, MooringError
from gateway.answers import Mqtt, RegisteredDevice
from gateway.bearer import bearer
from gateway.bodies import StrictJson
from gateway.conditional import entity_tag, is_current
from gateway.device_calls import DeviceCalls
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.problems import Problem, errors, problem

# `auth` is the secret that the device shows.
DeviceRequest = Request[Any, str, State]

MAX_BODY_BYTES = 64 * 1024
DeviceUuid = Annotated[
    str, PathParameter(pattern=IDENTIFIER_PATTERN, description="The device's own name for itself.")
]


Text128 = Annotated[str, documented(maxLength=128)]


class Location(Struct, frozen=True):
    """Where a device is, in degrees (WGS 84)."""

    latitude: Annotated[float, documented(minimum=-90, maximum=90)]
    longitude: Annotated[float, documented(minimum=-180, maximum=180)]


class NewDevice(Struct, rename="camel", kw_only=True, frozen=True):
    """What a device says of itself. Its types are checked here, its values by the registry.

    Null is as good as absent.
    """

    uuid: Annotated[str, documented(pattern=IDENTIFIER_PATTERN, examples=["test-device-123"])]
    device_name: Annotated[str, documented(minLength=1, maxLength=255)]
    device_type: Annotated[str, documented(minLength=1, maxLength=64)]
    device_api_key: Annotated[
        str,
        documented(
            minLength=8,
            maxLength=512,
            pattern="^[!-~]+$",
            description="Made by the device, and kept by it. Printable ASCII without spaces.",
        ),
    ]
    application_id: Text128 | None = None
    mac_address: Text128 | None = None
    os_version: Text128 | None = None
    agent_version: Text128 | None = None
    region: Annotated[str, documented(maxLength=64)] | None = None
    location: Location | None = None


# The registry names fields as the protos do; a device knows them as it wrote them.
NAMES: dict[str, str] = {field.name: field.encode_name for field in fields(NewDevice)}


def routes(calls: DeviceCalls) -> Router:
    """What devices may ask of `calls`."""

    @post(
        "/register",
        summary="Register a device",
        description=(
            "Gives a device its identity and its broker. Safe to repeat: the same uuid, "
            "deviceApiKey and provisioning key get the same identity and today's broker."
        ),
        dto=StrictJson[NewDevice],
        before_request=_show_secret,
        security=[{"provisioningKey": []}],
        responses=errors(401, 403, 404, 409, 413, 415, 422)
        | {200: ResponseSpec(RegisteredDevice, description="It was registered before.")},
    )
    async def register(
        request: DeviceRequest, data: JSONBody[NewDevice]
    ) -> Response[RegisteredDevice]:
        try:
            device, created = await calls.register(_registration(request.auth, data))
        except MooringError as error:
            error.field = NAMES.get(error.field, error.field)
            raise
        return Response(
            device,
            status_code=201 if created else 200,
            headers={"Cache-Control": "no-store"},
        )

    @get(
        "/{uuid:str}/mqtt",
        summary="Where a device connects today",
        description=(
            "Ask again after `refreshAfter` seconds, with If-None-Match, to learn of a move."
        ),
        before_request=_show_secret,
        security=[{"deviceApiKey": []}],
        responses=errors(401, 403, 404, 409, 422)
        | {304: ResponseSpec(None, description="What the entity tag stands for is current.")},
    )
    async def mqtt(request: DeviceRequest, uuid: DeviceUuid) -> Response[Mqtt | None]:
        answer = await calls.connection(uuid, request.auth)
        tag = entity_tag(
            answer.generation,
            refresh_after_s=answer.refresh_after,
            is_stale=answer.stale is True,
        )
        # The device's own store may keep it; one that others share may not: it holds a password.
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if is_current(request.headers.getall("if-none-match", []), tag):
            return Response(None, status_code=304, headers=headers)
        return Response(answer, headers=headers)

    return Router(
        "/api/v1/device",
        route_handlers=[register, mqtt],
        exception_handlers={LostRace: _of_lost_race},
        request_max_body_size=MAX_BODY_BYTES,
        tags=["device"],
    )


def _of_lost_race(_: DeviceRequest, error: LostRace) -> Response[Problem]:
    """412 would have it read again and decide again; all that a device can do is ask again."""
    return problem(503, error.reason, error.message, retry_after_s=error.retry_after_s)


def _show_secret(request: DeviceRequest) -> None:
    """Runs before the body is read: who does not say who it is gets no further."""
    request.scope["auth"] = bearer(request.scope["headers"])


def _registration(key: str, device: NewDevice) -> registration_pb2.Registration:
    location = device.location
    return registration_pb2.Registration(
        provisioning_key=key,
        uuid=device.uuid,
        device_name=device.device_name,
        device_type=device.device_type,
        device_api_key=device.device_api_key,
        application_id=device.application_id or "",
        mac_address=device.mac_address or "",
        os_version=device.os_version or "",
        agent_version=device.agent_version or "",
        region=device.region or "",
        location=resolution_pb2.Location(latitude=location.latitude, longitude=location.longitude)
        if location
        else None,
    )
