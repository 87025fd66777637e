"""The whole menu as a page, for phones, and the answer where there is no page."""

from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from chassis.trust import Access, WithinFleets
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest


@get("/menu", access=WithinFleets(Access.VIEWER))
async def menu(request: ConsoleRequest) -> Response[bytes]:
    """All pages that the person may see, the theme, and when the session ends."""
    return page(request, "menu.html")


@get("/{rest:path}", access=WithinFleets(Access.VIEWER))
async def missing(request: ConsoleRequest, rest: FromPath[str]) -> Response[bytes]:  # noqa: ARG001
    """An error page, in the frame, for addresses without a page."""
    raise NotFoundException
