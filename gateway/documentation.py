"""Makes the OpenAPI document: Litestar's document of the routes, with the parts that Litestar
leaves out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import Litestar, Response, Router
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, License, SecurityScheme
from litestar.types import Method
from msgspec import Struct

from chassis.trust import Access, WithinFleets, access_of
from chassis.validation import IDENTIFIER
from chassis.version import VERSION
from gateway.examples import PARAMETERS, REQUEST_ID, example_of
from gateway.problems import MEDIA_TYPE, RETRIED
from gateway.reasons import MEANINGS, reasons_of

TITLE = "Mooring"
DESCRIPTION = (
    "Mooring provisions IoT devices: a device registers once with a provisioning key, and gets "
    "its MQTT identity and the settings of its broker. Every error is an RFC 9457 "
    "problem document."
)

# The pattern of a device's uuid and a fleet's id.
IDENTIFIER_PATTERN = f"^{IDENTIFIER.pattern}$"

SCHEMAS = "#/components/schemas/"

SECURITY_SCHEMES = {
    "provisioningKey": "A provisioning key, made at /api/v1/provisioning-keys.",
    "deviceApiKey": "The device API key, which the device made and sent when it registered.",
    "apiToken": "The API token of a person or a script.",
}


class LinesOf(NamedTuple):
    """A file in the document: the types of its lines, and an example."""

    types: tuple[type[Struct], ...]
    examples: tuple[Mapping[str, Any], ...]

    def text(self) -> str:
        """The example as application/x-ndjson."""
        return "".join(f"{json.dumps(line)}\n" for line in self.examples)

    def csv(self) -> str:
        """The example as text/csv, for files with one type of line, without quotes."""
        rows = [self.examples[0], *(line.values() for line in self.examples)]
        return "".join(",".join(map(str, row)) + "\n" for row in rows)


class EventsOf(NamedTuple):
    """A stream of events in the document: the types of their data, and examples."""

    types: tuple[type[Struct], ...]
    examples: tuple[Mapping[str, Any], ...]

    def text(self) -> str:
        """The examples as text/event-stream."""
        return "".join(
            f"id: {number}\nevent: changes\ndata: {json.dumps(data)}\n\n"
            for number, data in enumerate(self.examples, start=1)
        )


def documented(**limits: Any) -> msgspec.Meta:
    """Limits of a field that only the document uses, because the services enforce them."""
    return msgspec.Meta(extra_json_schema=limits)


def document(
    routers: Sequence[Router], direct: Mapping[str, dict[str, Any]], types: Iterable[type[Any]]
) -> bytes:
    """The OpenAPI document of `routers`, as JSON.

    `direct` holds the path items that are served without Litestar, and `types` the types to which
    they refer.
    """
    described = Litestar(
        routers,
        openapi_config=OpenAPIConfig(
            title=TITLE,
            version=VERSION,
            description=DESCRIPTION,
            license=License("Apache-2.0", identifier="Apache-2.0"),
            operation_id_creator=_operation_id,
            components=Components(
                security_schemes={
                    name: SecurityScheme(type="http", scheme="bearer", description=description)
                    for name, description in SECURITY_SCHEMES.items()
                }
            ),
        ),
        logging_config=None,
    )
    found = described.openapi_schema.to_schema()
    served = {
        _operation_id(handler, method, None): handler
        for handler in _handlers(described)
        for method in handler.http_methods
    }
    for operations in found["paths"].values():
        for operation in operations.values():
            handler = served[operation["operationId"]]
            _say_role(operation, handler)
            _say_lines(operation, handler)
            _say_responses(operation, handler)
    found["paths"] = {**direct, **found["paths"]}
    kinds = [*types, *_types(served.values())]
    shown = {kind.__name__: example_of(kind) for kind in kinds if isinstance(kind, type)}
    for operations in found["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                response["headers"] = {**response.get("headers", {}), **_headers(status)}
            _exemplify(operation, shown)
    # Litestar's schemas lack limits, docstrings and the refusal of unknown fields.
    _, schemas = msgspec.json.schema_components(kinds, ref_template=f"{SCHEMAS}{{name}}")
    found["components"]["schemas"] = schemas
    return msgspec.json.encode(found)


def statuses_of(operation: Mapping[str, Any], handler: HTTPRouteHandler) -> set[int]:
    """The error statuses that follow from a route's policy, body and parameters."""
    found = set[int]()
    if access_of(handler.opt["access"]) > Access.OPEN:
        found |= {401, 403}
    if "action" in handler.opt:
        found.add(412)
    if "requestBody" in operation:
        found |= {413, 415, 422}
    places = {parameter["in"] for parameter in operation.get("parameters", ())}
    if "query" in places:
        found.add(422)
    if "path" in places:
        found.add(404)
    return found


def problem_response(status: str, reasons: Sequence[str]) -> dict[str, Any]:
    """The answer with an error status, which has one of `reasons`."""
    phrase = HTTPStatus(int(status)).phrase
    described = [f"- `{reason}`: {MEANINGS[reason][1]}" for reason in reasons]
    narrowed = {"properties": {"status": {"const": int(status)}, "reason": {"enum": [*reasons]}}}
    return {
        "description": "\n".join([phrase, "", *described]),
        "content": {
            MEDIA_TYPE: {
                "schema": {"allOf": [{"$ref": f"{SCHEMAS}Problem"}, narrowed]},
                "examples": {
                    reason: {
                        "value": {
                            "type": "about:blank",
                            "title": phrase,
                            "status": int(status),
                            "detail": MEANINGS[reason][1],
                            "reason": reason,
                            "request_id": REQUEST_ID,
                        }
                    }
                    for reason in reasons
                },
            }
        },
    }


def _say_responses(operation: dict[str, Any], handler: HTTPRouteHandler) -> None:
    """Adds the errors of the route's kind and its own `reasons`, with their meanings."""
    responses = operation["responses"]
    for status, response in responses.items():
        if response["description"] == HTTPStatus(int(status)).description:
            response["description"] = HTTPStatus(int(status)).phrase
    reasons = reasons_of(*statuses_of(operation, handler), *handler.opt.get("reasons", ()))
    for status, possible in reasons.items():
        if status not in (handler.responses or {}):
            responses[str(status)] = problem_response(str(status), possible)


def _exemplify(operation: dict[str, Any], shown: Mapping[str, Any]) -> None:
    """Adds the examples. `shown` holds the examples of types, by the type's name."""
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in PARAMETERS:
            parameter["example"] = PARAMETERS[parameter["name"]]
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        for content in body.get("content", {}).values():
            schema = content["schema"]
            name = schema.get("items", schema).get("$ref", "").removeprefix(SCHEMAS)
            if (example := shown.get(name)) is not None:
                content["example"] = [example] if "items" in schema else example


def _operation_id(handler: HTTPRouteHandler, method: Method, _: object) -> str:
    """The handler's name, with the method if the handler has several."""
    name = handler.handler_name
    return name if len(handler.http_methods) == 1 else f"{name}_{method.lower()}"


def _say_role(operation: dict[str, Any], handler: HTTPRouteHandler) -> None:
    """Adds the role that the operation needs to its description."""
    policy = handler.opt["access"]
    access = access_of(policy)
    if access > Access.OPEN:
        needed = f"Needs the role `{access.name.lower()}`."
        if not isinstance(policy, WithinFleets):
            needed += " Not for tokens that are restricted to fleets."
        said = (operation.get("description"), needed)
        operation["description"] = "\n\n".join(filter(None, said))


def _say_lines(operation: dict[str, Any], handler: HTTPRouteHandler) -> None:
    """Adds bodies and answers with one object on each line, which Litestar does not document."""
    schema = {"type": "string"}
    if taken := handler.opt.get("upload"):
        content = {
            "application/x-ndjson": {"schema": schema, "example": taken.text()},
            "text/csv": {"schema": schema, "example": taken.csv()},
        }
        operation["requestBody"] = {"required": True, "content": content}
    if given := handler.opt.get("lines"):
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                if not content["schema"]:
                    content |= {"schema": schema, "example": given.text()}


def _types(handlers: Iterable[HTTPRouteHandler]) -> list[Any]:
    """The schemas of bodies and answers."""
    found: list[Any] = []
    for handler in handlers:
        answer = handler.parsed_fn_signature.return_type
        found += answer.args if answer.is_subclass_of(Response) else [answer.annotation]
        for name in ("upload", "lines"):
            found += handler.opt[name].types if name in handler.opt else ()
        found += [spec.data_container for spec in (handler.responses or {}).values()]
        if body := handler.parsed_fn_signature.parameters.get("data"):
            found.append(body.annotation)
    return found


def _handlers(app: Litestar) -> list[HTTPRouteHandler]:
    """The operations of the document."""
    return [
        handler
        for route in app.routes
        for handler in getattr(route, "route_handlers", [])
        if handler.include_in_schema
    ]


def _headers(status: str) -> dict[str, Any]:
    """The headers of every answer with that status."""
    said = {"X-Request-Id": "The `X-Request-Id` of the request, or a new one."}
    if status == "401":
        said["WWW-Authenticate"] = "Bearer."
    if int(status) in RETRIED:
        said["Retry-After"] = "Seconds."
    return {
        name: {"description": description, "schema": {"type": "string"}, "required": True}
        for name, description in said.items()
    }
