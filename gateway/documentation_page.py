"""`/openapi.json`, and a page that shows it and loads nothing from other servers."""

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from chassis.trust import Access
from gateway.context import context_of
from gateway.documentation import TITLE

# These files come unchanged from the npm package swagger-ui-dist; its licence is beside them.
SWAGGER_UI_VERSION = "5.35.0"
SWAGGER_UI = Path(__file__).parent / "static" / "swagger-ui"
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

# The page runs only scripts that are served here, and cannot be framed.
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


def routes(make: Callable[[], bytes]) -> Router:
    """The routes `/openapi.json` and `/docs`. `make` makes the document at the first request for
    it. That takes a good part of a second, for which no start and no device should wait.
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

    # The version is in the path, so the files never change.
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
