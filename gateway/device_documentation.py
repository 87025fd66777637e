"""The devices' paths in the OpenAPI document, which Litestar does not know."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from msgspec import Struct

from gateway.answers import Mqtt, RegisteredDevice
from gateway.device_report import ConnectionReport, ReportTaken
from gateway.device_routes import NewDevice
from gateway.documentation import IDENTIFIER_PATTERN, problem_response
from gateway.problems import Problem
from gateway.reasons import reasons_of

# The types that `PATHS` refers to.
TYPES: tuple[type[Struct], ...] = (
    *(NewDevice, RegisteredDevice, Mqtt),
    *(ConnectionReport, ReportTaken, Problem),
)


def _content(schema: str, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problems(*wanted: int | str, unusual: Mapping[int, tuple[str, ...]]) -> dict[str, Any]:
    """`unusual` has the reasons of the statuses for which devices get other reasons than people."""
    found = {**reasons_of(*wanted), **unusual}
    # Another request was first. The device can only repeat its request.
    found[503] = (*found[503], "LOST_RACE")
    return {str(status): problem_response(str(status), found[status]) for status in sorted(found)}


_UUID = {
    "name": "uuid",
    "in": "path",
    "required": True,
    "description": "The id that the device chose for itself.",
    "schema": {"type": "string", "pattern": IDENTIFIER_PATTERN},
}
_CONNECTION_PROBLEMS = _problems(
    *(413, 422, 429, "SERVER_KEY_MISSING", "BROKER_UNDECIDED", "NO_BROKER_FOR_FLEET"),
    unusual={
        401: ("UNAUTHENTICATED", "DEVICE_UNAUTHENTICATED"),
        403: ("DEVICE_DISABLED",),
        404: ("NO_SUCH_PATH",),
    },
)

_REPORT_PROBLEMS = _problems(
    *(413, 415, 422, 429, "SERVER_KEY_MISSING"),
    unusual={
        401: ("UNAUTHENTICATED", "DEVICE_UNAUTHENTICATED"),
        403: ("DEVICE_DISABLED",),
        404: ("NO_SUCH_PATH",),
    },
)

PATHS: dict[str, dict[str, Any]] = {
    "/api/v1/device/register": {
        "post": {
            "tags": ["device"],
            "summary": "Register a device",
            "description": (
                "Gives a device its identity and its broker. Safe to repeat: the same uuid, "
                "deviceApiKey and provisioning key get the same identity and today's broker."
            ),
            "operationId": "register",
            "security": [{"provisioningKey": []}],
            "requestBody": {"required": True, "content": _content("NewDevice")},
            "responses": {
                "200": {
                    "description": "The device was registered before.",
                    "content": _content("RegisteredDevice"),
                },
                "201": {
                    "description": HTTPStatus.CREATED.phrase,
                    "content": _content("RegisteredDevice"),
                },
                **_problems(
                    *(413, 415, 429, "DEVICE_TAKEN", "REFUSED_VALUES", "SERVER_KEY_MISSING"),
                    *("BROKER_UNDECIDED", "NO_BROKER_FOR_FLEET"),
                    unusual={
                        401: (
                            "UNAUTHENTICATED",
                            "PROVISIONING_KEY_UNKNOWN",
                            "PROVISIONING_KEY_REVOKED",
                        ),
                        403: (
                            "PROVISIONING_KEY_EXPIRED",
                            "PROVISIONING_KEY_USED_UP",
                            "NETWORK_NOT_ALLOWED",
                            "DEVICE_TYPE_NOT_ALLOWED",
                            "UUID_NOT_ALLOWED",
                            "DEVICE_NOT_EXPECTED",
                            "UUID_RESERVED",
                            "FLEET_DISABLED",
                            "DEVICE_DISABLED",
                        ),
                    },
                ),
            },
        }
    },
    "/api/v1/device/{uuid}/mqtt": {
        "get": {
            "tags": ["device"],
            "summary": "Get the broker that a device connects to now",
            "description": (
                "Ask again after `refreshAfter` seconds, with If-None-Match, to get a new "
                "broker if there is one."
            ),
            "operationId": "mqtt",
            "security": [{"deviceApiKey": []}],
            "parameters": [_UUID],
            "responses": {
                "200": {"description": HTTPStatus.OK.phrase, "content": _content("Mqtt")},
                "304": {"description": "The answer with this entity tag is current."},
                **_CONNECTION_PROBLEMS,
            },
        }
    },
    "/api/v1/device/{uuid}/mqtt/report": {
        "post": {
            "tags": ["device"],
            "summary": "Say whether the broker was reached",
            "description": (
                "Optional. Administrators see the last report, and a broker that many devices of"
                " several fleets cannot reach gets no new ones. A report within a minute after"
                " another one of the same state is not kept."
            ),
            "operationId": "report",
            "security": [{"deviceApiKey": []}],
            "parameters": [_UUID],
            "requestBody": {"required": True, "content": _content("ConnectionReport")},
            "responses": {
                "200": {"description": HTTPStatus.OK.phrase, "content": _content("ReportTaken")},
                **_REPORT_PROBLEMS,
            },
        }
    },
    "/api/v1/device/{uuid}/credentials/rotate": {
        "post": {
            "tags": ["device"],
            "summary": "Get a new MQTT password",
            "description": (
                "Brokers that ask Mooring accept the previous password for a while. If the answer"
                " gets lost, get the device's broker: that answer has the new password too."
            ),
            "operationId": "rotate",
            "security": [{"deviceApiKey": []}],
            "parameters": [_UUID],
            "responses": {
                "200": {"description": HTTPStatus.OK.phrase, "content": _content("Mqtt")},
                **_CONNECTION_PROBLEMS,
            },
        }
    },
}
