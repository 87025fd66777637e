"""The OpenAPI document, and the page that shows it without asking anybody else's server."""

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, License, SecurityScheme
from litestar.params import FromPath
from litestar.types import Method

from chassis.trust import Access, WithinFleets, access_of
from chassis.validation import IDENTIFIER
from gateway import examples
from gateway.context import context_of
from gateway.problems import MEDIA_TYPE, RETRIED, ProblemSpec
from gateway.reasons import MEANINGS

TITLE = "Mooring"
VERSION = "0.1.0"
DESCRIPTION = (
    "Where a device ties up: it registers once with a provisioning key and learns who it is on "
    "MQTT and which broker to talk to. Every error is an RFC 9457 problem document."
)

# Taken from the npm package swagger-ui-dist as it is; its licence lies beside it.
SWAGGER_UI_VERSION = "5.35.0"
SWAGGER_UI = Path(__file__).parent / "static" / "swagger-ui"
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

# Of a device's uuid and a fleet's id.
IDENTIFIER_PATTERN = f"^{IDENTIFIER.pattern}$"

SCHEMAS = "#/components/schemas/"

SECURITY_SCHEMES = {
    "provisioningKey": "Lets devices in; made at /api/v1/provisioning-keys.",
    "deviceApiKey": "Made by the device, and sent when it registered.",
    "apiToken": "Of a person or a script.",
}

# The page runs nothing that is not served here, and nothing can frame it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{TITLE}</title>
<link rel="icon" href="/docs/{SWAGGER_UI_VERSION}/favicon-32x32.png">
<link rel="stylesheet" href="/docs/{SWAGGER_UI_VERSION}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/{SWAGGER_UI_VERSION}/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true});
"""


def documented(**limits: Any) -> msgspec.Meta:
    """Limits of a field for the document alone: the services keep them, each in one place."""
    return msgspec.Meta(extra_json_schema=limits)


def document(
    routers: Sequence[Router], direct: Mapping[str, dict[str, Any]], types: Iterable[type[Any]]
) -> bytes:
    """The OpenAPI document of what `routers` serve, as JSON.

    `direct` are the path items of what is served without the framework, `types` the types that
    they refer to.
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
    _say_roles(described, found["paths"])
    _say_uploads(described, found["paths"])
    reasons = _reasons(described)
    for operations in found["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if response["description"] == HTTPStatus(int(status)).description:
                    response["description"] = HTTPStatus(int(status)).phrase
                if own := reasons[operation["operationId"]].get(status):
                    response |= problem_response(status, own)
    found["paths"] = {**direct, **found["paths"]}
    for operations in found["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                response["headers"] = {**response.get("headers", {}), **_headers(status)}
            _exemplify(operation)
    # Litestar loses limits, docstrings and the refusal of unknown fields on the way.
    _, schemas = msgspec.json.schema_components(
        [*types, *_types(described)], ref_template=f"{SCHEMAS}{{name}}"
    )
    found["components"]["schemas"] = schemas
    return msgspec.json.encode(found)


def problem_response(status: str, reasons: Sequence[str]) -> dict[str, Any]:
    """The answer of a status that is an error, which has one of `reasons`."""
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
                            "request_id": examples.REQUEST_ID,
                        }
                    }
                    for reason in reasons
                },
            }
        },
    }


def _reasons(app: Litestar) -> dict[str, dict[str, Sequence[str]]]:
    """Those that operations give, by the operation's id and the status."""
    return {
        _operation_id(handler, method, None): {
            str(status): spec.reasons
            for status, spec in (handler.responses or {}).items()
            if isinstance(spec, ProblemSpec)
        }
        for handler in _handlers(app)
        for method in handler.http_methods
    }


def _exemplify(operation: dict[str, Any]) -> None:
    """Puts what is in `examples` where it is used."""
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in examples.PARAMETERS:
            parameter["example"] = examples.PARAMETERS[parameter["name"]]
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        for content in body.get("content", {}).values():
            schema = content["schema"]
            name = schema.get("items", schema).get("$ref", "").removeprefix(SCHEMAS)
            if name in examples.BODIES:
                example = examples.BODIES[name]
                content["example"] = [example] if "items" in schema else example
            elif not schema:
                # What is written piece by piece, of which the framework knows no type.
                content["schema"] = {"type": "string"}
                content["example"] = examples.TEXTS[operation["operationId"]]


def _operation_id(handler: HTTPRouteHandler, method: Method, _: object) -> str:
    """The handler's name; with the method, where it has several."""
    name = handler.handler_name
    return name if len(handler.http_methods) == 1 else f"{name}_{method.lower()}"


def _say_roles(app: Litestar, paths: Mapping[str, dict[str, Any]]) -> None:
    """Adds to the descriptions what each operation needs."""
    stated = {
        _operation_id(handler, method, None): handler.opt.get("access", Access.OPEN)
        for route in app.routes
        for handler in getattr(route, "route_handlers", [])
        for method in handler.http_methods
    }
    for operations in paths.values():
        for operation in operations.values():
            policy = stated[operation["operationId"]]
            access = access_of(policy)
            if access > Access.OPEN:
                needed = f"Needs the role `{access.name.lower()}`."
                if not isinstance(policy, WithinFleets):
                    needed += " Not for tokens that are restricted to fleets."
                said = (operation.get("description"), needed)
                operation["description"] = "\n\n".join(filter(None, said))


def _say_uploads(app: Litestar, paths: Mapping[str, dict[str, Any]]) -> None:
    """Adds the bodies of operations that take files: those that say which types are in them."""
    takes_files = {
        _operation_id(handler, method, None)
        for handler in _handlers(app)
        for method in handler.http_methods
        if "upload" in handler.opt
    }
    for operations in paths.values():
        for operation in operations.values():
            name = operation["operationId"]
            if name in takes_files:
                content = {
                    media_type: {"schema": {"type": "string"}, "example": example}
                    for media_type, example in examples.FILES[name].items()
                }
                operation["requestBody"] = {"required": True, "content": content}


def _types(app: Litestar) -> list[Any]:
    """What bodies and answers are made of."""
    found: list[Any] = []
    for handler in _handlers(app):
        answer = handler.parsed_fn_signature.return_type
        found += answer.args if answer.is_subclass_of(Response) else [answer.annotation]
        found += handler.opt.get("upload", ())
        found += [spec.data_container for spec in (handler.responses or {}).values()]
        if body := handler.parsed_fn_signature.parameters.get("data"):
            found.append(body.annotation)
    return found


def _handlers(app: Litestar) -> list[HTTPRouteHandler]:
    """Those that the document is about."""
    return [
        handler
        for route in app.routes
        for handler in getattr(route, "route_handlers", [])
        if handler.include_in_schema
    ]


def _headers(status: str) -> dict[str, Any]:
    """What every answer of that status carries."""
    said = {"X-Request-Id": "The request's own, or one that was made for it."}
    if status == "401":
        said["WWW-Authenticate"] = "Bearer."
    if int(status) in RETRIED:
        said["Retry-After"] = "Seconds."
    return {
        name: {"description": description, "schema": {"type": "string"}, "required": True}
        for name, description in said.items()
    }


def routes(make: Callable[[], bytes]) -> Router:
    """`/openapi.json`, which `make` makes when it is first asked for, and `/docs`.

    It takes a good part of a second, which neither a start nor a device is to wait for.
    """
    made = functools.cache(make)
    assets = {name: (SWAGGER_UI / name).read_bytes() for name in ASSETS}

    @get("/openapi.json", access=Access.OPEN)
    async def openapi_json(request: Request[Any, Any, Any]) -> Response[bytes]:
        async with context_of(request).documenting:
            openapi = await asyncio.to_thread(made)
        return Response(
            openapi, media_type="application/json", headers={"Cache-Control": "no-cache"}
        )

    @get("/docs", access=Access.OPEN)
    async def docs() -> Response[str]:
        return Response(
            PAGE,
            media_type="text/html",
            headers={
                "Cache-Control": "no-cache",
                "Content-Security-Policy": CONTENT_SECURITY_POLICY,
                "Referrer-Policy": "no-referrer",
            },
        )

    @get("/docs/start.js", access=Access.OPEN)
    async def start() -> Response[str]:
        return Response(START, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    # The version is in the path, so what is there never changes.
    @get(f"/docs/{SWAGGER_UI_VERSION}/{{name:str}}", access=Access.OPEN)
    async def asset(name: FromPath[str]) -> Response[bytes]:
        if name not in assets:
            raise NotFoundException
        return Response(
            assets[name],
            media_type=ASSETS[name],
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )

    return Router("/", route_handlers=[openapi_json, docs, start, asset], include_in_schema=False)
