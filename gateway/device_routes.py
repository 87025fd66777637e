"""The paths of devices: registering, asking for the broker, reporting, rotating the password.

Their JSON is camelCase.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from litestar.exceptions import HTTPException
from mooring.registry.v1 import registration_pb2
from msgspec import Struct, structs

from chassis.bearer import bearer
from chassis.direct_http import Head, Reply
from chassis.queue import Call
from chassis.trust import Access
from chassis.validation import IDENTIFIER
from gateway import device_report
from gateway.addresses import Network, client_of
from gateway.answers import Connected, Registered
from gateway.bodies import decode, is_json
from gateway.conditional import entity_tag, is_current
from gateway.device_calls import DeviceCalls
from gateway.device_handler import DeviceHandler, DeviceRequest, DeviceRoute
from gateway.documentation import IDENTIFIER_PATTERN, documented
from gateway.examples import UUID
from gateway.held import Waiting
from gateway.limits import Limits

PREFIX = b"/api/v1/device/"

Text128 = Annotated[str, documented(maxLength=128)]


class Location(Struct, frozen=True):
    """Where a device is, in degrees (WGS 84)."""

    latitude: Annotated[float, documented(minimum=-90, maximum=90)]
    longitude: Annotated[float, documented(minimum=-180, maximum=180)]


class NewDevice(Struct, rename="camel", kw_only=True, frozen=True):
    """The body of a registration. The gateway checks types, and the registry checks values.

    Null means the same as a missing field.
    """

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "uuid": UUID,
        "deviceName": "Test Device",
        "deviceType": "raspberry-pi-4",
        "deviceApiKey": "test-api-key",
    }

    uuid: Annotated[str, documented(pattern=IDENTIFIER_PATTERN, examples=["test-device-123"])]
    device_name: Annotated[str, documented(minLength=1, maxLength=255)]
    device_type: Annotated[str, documented(minLength=1, maxLength=64)]
    device_api_key: Annotated[
        str,
        documented(
            minLength=8,
            maxLength=512,
            pattern="^[!-~]+$",
            description="The device makes and stores it. Printable ASCII without spaces; use 32 "
            "random characters or more.",
        ),
    ]
    application_id: Text128 | None = None
    mac_address: Text128 | None = None
    os_version: Text128 | None = None
    agent_version: Text128 | None = None
    region: Annotated[str, documented(maxLength=64)] | None = None
    location: Location | None = None


DECODER = msgspec.json.Decoder(NewDevice)
ENCODER = msgspec.json.Encoder()

NO_STORE = b"content-type: application/json\r\ncache-control: no-store\r\n"


class RegistrationRoute:
    """`POST /api/v1/device/register`."""

    methods: Sequence[bytes] = (b"POST",)
    # The gateway lets every caller through; the registry checks the provisioning key.
    access = Access.OPEN

    def __init__(
        self, calls: DeviceCalls, limits: Limits | None, proxies: Sequence[Network]
    ) -> None:
        """Uses `calls` as often as `limits` allow; `proxies` are trusted for addresses."""
        self._calls = calls
        self._limits = limits
        self._proxies = proxies

    def admit(self, request: DeviceRequest) -> str:
        """The provisioning key. Raises `RateLimited`, `Unauthenticated`."""
        request.client = client_of(request.client, request.headers, self._proxies)
        return _shown(request, self._limits, counts_by_key=True)

    def ask(self, request: DeviceRequest) -> "Call[Any, Any]":
        """Starts the call. Raises the errors of the request, and `Overloaded`."""
        device = decode(DECODER, _json_in(request))
        registration = _registration(request.secret, device, _address(request))
        return self._calls.register(registration, size=len(request.body))

    def awaited(self, answer: Registered, since: float) -> Waiting | None:
        """Starts the wait until the device's broker holds it; None if there is no wait."""
        return self._calls.awaited(answer, since=since)

    def reply(self, request: DeviceRequest, answer: Registered) -> Reply:  # noqa: ARG002
        """201 for a new device, 200 for one that was registered before."""
        return Reply(201 if answer.created else 200, NO_STORE, ENCODER.encode(answer.device))


class ApiKeyRoute:
    """What the routes of registered devices have in common."""

    # The gateway lets every caller through; the registry checks the device's API key.
    access = Access.OPEN

    def __init__(
        self, calls: DeviceCalls, limits: Limits | None, proxies: Sequence[Network]
    ) -> None:
        """Uses `calls` as often as `limits` allow; `proxies` are trusted for addresses."""
        self._calls = calls
        self._limits = limits
        self._proxies = proxies

    def admit(self, request: DeviceRequest) -> str:
        """The device's API key. Raises `RateLimited`, `Unauthenticated`."""
        request.client = client_of(request.client, request.headers, self._proxies)
        return _shown(request, self._limits, counts_by_key=False)


class ConnectionRoute(ApiKeyRoute):
    """`GET /api/v1/device/{uuid}/mqtt`."""

    methods: Sequence[bytes] = (b"GET", b"HEAD")

    def ask(self, request: DeviceRequest) -> "Call[Any, Any]":
        """Raises `Overloaded`."""
        return self._calls.connection(request.uuid, request.secret, _address(request))

    def awaited(self, answer: Connected, since: float) -> Waiting | None:
        """Starts the wait until the device's broker holds it; None if there is no wait."""
        return self._calls.awaited(answer, since=since)

    def reply(self, request: DeviceRequest, answer: Connected) -> Reply:
        """200, or 304 if the device has this answer and its broker holds the device."""
        mqtt = answer.mqtt
        # The tag does not cover whether the broker holds the device.
        tag = entity_tag(
            mqtt.generation, refresh_after_s=answer.refresh_after, is_stale=mqtt.stale is True
        )
        # Only a private cache may store the answer, because it contains a password.
        head = b"etag: %b\r\ncache-control: private, no-cache\r\n" % tag.encode()
        known = [
            value.decode("latin-1") for name, value in request.headers if name == b"if-none-match"
        ]
        if is_current(known, tag) and mqtt.ready is not False:
            return Reply(304, head, b"")
        return Reply(200, head + b"content-type: application/json\r\n", ENCODER.encode(mqtt))


class RotationRoute(ConnectionRoute):
    """`POST /api/v1/device/{uuid}/credentials/rotate`."""

    methods: Sequence[bytes] = (b"POST",)

    def ask(self, request: DeviceRequest) -> "Call[Any, Any]":
        """Raises `Overloaded`."""
        return self._calls.rotation(request.uuid, request.secret, _address(request))

    def reply(self, request: DeviceRequest, answer: Connected) -> Reply:  # noqa: ARG002
        """200, also if concurrent rotations of the device were done together."""
        return Reply(200, NO_STORE, ENCODER.encode(answer.mqtt))


class ReportRoute(ApiKeyRoute):
    """`POST /api/v1/device/{uuid}/mqtt/report`."""

    methods: Sequence[bytes] = (b"POST",)

    def ask(self, request: DeviceRequest) -> "Call[Any, Any]":
        """Starts the call. Raises the errors of the request, and `Overloaded`."""
        report = decode(device_report.DECODER, _json_in(request))
        message = device_report.report_of(request.uuid, request.secret, _address(request), report)
        return self._calls.report(message)

    def awaited(self, answer: None, since: float) -> None:
        """A report is never waited for."""

    def reply(self, request: DeviceRequest, answer: None) -> Reply:  # noqa: ARG002
        """200, also if the report was not worth a write."""
        return Reply(200, NO_STORE, device_report.TAKEN)


class DeviceRoutes:
    """The four routes, by their paths."""

    def __init__(
        self,
        calls: DeviceCalls,
        limits: Limits | None,
        proxies: Sequence[Network] = (),
        note_refused: Callable[[str], None] | None = None,
    ) -> None:
        """The routes use `calls` as often as `limits` allow; `proxies` are trusted.

        `note_refused` is called with the reason of a problem that the registry does not know of.
        """
        self._note_refused = note_refused
        self._registration = RegistrationRoute(calls, limits, proxies)
        self._below_uuid: dict[bytes, DeviceRoute] = {
            b"mqtt": ConnectionRoute(calls, limits, proxies),
            b"mqtt/report": ReportRoute(calls, limits, proxies),
            b"credentials/rotate": RotationRoute(calls, limits, proxies),
        }

    def find(self, head: Head) -> DeviceHandler | None:
        """The handler of a request; None if the path is not a device's."""
        path = head.path
        if not path.startswith(PREFIX):
            return None
        if path == b"/api/v1/device/register":
            return DeviceHandler(self._registration, "", head, self._note_refused)
        uuid, _, rest = path.removeprefix(PREFIX).partition(b"/")
        route = self._below_uuid.get(rest)
        if route is not None and IDENTIFIER.fullmatch(text := uuid.decode("latin-1")):
            return DeviceHandler(route, text, head, self._note_refused)
        return None


def _shown(request: DeviceRequest, limits: Limits | None, *, counts_by_key: bool) -> str:
    """The device's secret. Raises `RateLimited`, `Unauthenticated`."""
    if limits is None:
        return bearer(request.headers)
    # A request without a secret counts for the address too.
    limits.admit(request.client)
    secret = bearer(request.headers)
    if counts_by_key:
        limits.admit(None, secret)
    return secret


def _address(request: DeviceRequest) -> str:
    """The device's address; empty if it is not known."""
    return request.client[0] if request.client else ""


def _json_in(request: DeviceRequest) -> bytes:
    """The body. Raises `HTTPException` if there is none, or if it is not JSON."""
    if not request.body:
        raise HTTPException(status_code=400)
    if not is_json(_content_type(request.headers)):
        raise HTTPException(status_code=415)
    return request.body


def _content_type(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"content-type":
            return value.decode("latin-1")
    return ""


def _registration(key: str, device: NewDevice, address: str) -> registration_pb2.Registration:
    """The registration as a message. The body and the message have the same names of fields.

    A field that is None is not set, which means the same as an empty text.
    """
    attributes = structs.asdict(device)
    if (location := device.location) is not None:
        attributes["location"] = structs.asdict(location)
    return registration_pb2.Registration(provisioning_key=key, source_address=address, **attributes)
