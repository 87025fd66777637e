"""The scripts, styles and icons of the console, at an address that changes when one of them does.

All files have one address, so that scripts can import one another by relative paths.
"""

import functools
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from chassis.trust import Access

FOLDER = Path(__file__).parent / "assets"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# A day would do for a browser that is used daily; the address never means another file.
IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, as it is and compressed."""

    plain: bytes
    compressed: bytes
    media_type: str


@functools.cache
def all_assets() -> Mapping[str, Asset]:
    """The files by their names, which have no folder."""
    return {
        file.name: Asset(
            plain := file.read_bytes(), gzip.compress(plain, mtime=0), MEDIA_TYPES[file.suffix]
        )
        for file in sorted(FOLDER.iterdir())
        if file.suffix in MEDIA_TYPES
    }


@functools.cache
def version() -> str:
    """Changes with the content of any file."""
    digest = hashlib.sha256()
    for name, asset in all_assets().items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(asset.plain).digest())
    return digest.hexdigest()[:16]


def address_of(name: str) -> str:
    """The path of an asset. Raises `KeyError` if there is no such file."""
    if name not in all_assets():
        raise KeyError(name)
    return f"/console/assets/{version()}/{name}"


@get("/assets/{of_version:str}/{name:str}", access=Access.OPEN)
async def asset(
    request: Request[Any, Any, Any], of_version: FromPath[str], name: FromPath[str]
) -> Response[bytes]:
    """A file of this version; a page of an older one loads itself again."""
    found = all_assets().get(name)
    if found is None or of_version != version():
        raise NotFoundException
    headers = {"Cache-Control": IMMUTABLE, "Vary": "Accept-Encoding"}
    accepted = [
        part.partition(";")[0].strip().lower()
        for part in request.headers.get("accept-encoding", "").split(",")
    ]
    if "gzip" in accepted:
        body = found.compressed
        headers["Content-Encoding"] = "gzip"
    else:
        body = found.plain
    return Response(body, media_type=found.media_type, headers=headers)
