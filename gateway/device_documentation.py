"""What the OpenAPI document says of the devices' paths, which no framework describes."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from msgspec import Struct

from gateway.answers import Mqtt, RegisteredDevice
from gateway.device_routes import NewDevice
from gateway.documentation import IDENTIFIER_PATTERN
from gateway.problems import MEDIA_TYPE, Problem

# The types that `PATHS` refers to.
TYPES: tuple[type[Struct], ...] = (NewDevice, RegisteredDevice, Mqtt, Problem)


def _content(schema: str, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problems(statuses: Iterable[int]) -> dict[str, Any]:
    return {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": _content("Problem", MEDIA_TYPE),
        }
        for status in statuses
    }


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
                    "description": "It was registered before.",
                    "content": _content("RegisteredDevice"),
                },
                "201": {
                    "description": HTTPStatus.CREATED.phrase,
                    "content": _content("RegisteredDevice"),
                },
                **_problems((400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503)),
            },
        }
    },
    "/api/v1/device/{uuid}/mqtt": {
        "get": {
            "tags": ["device"],
            "summary": "Where a device connects today",
            "description": (
                "Ask again after `refreshAfter` seconds, with If-None-Match, to learn of a move."
            ),
            "operationId": "mqtt",
            "security": [{"deviceApiKey": []}],
            "parameters": [
                {
                    "name": "uuid",
                    "in": "path",
                    "required": True,
                    "description": "The device's own name for itself.",
                    "schema": {"type": "string", "pattern": IDENTIFIER_PATTERN},
                }
            ],
            "responses": {
                "200": {"description": HTTPStatus.OK.phrase, "content": _content("Mqtt")},
                "304": {"description": "What the entity tag stands for is current."},
                **_problems((400, 401, 403, 404, 409, 413, 422, 429, 500, 503)),
            },
        }
    },
}
