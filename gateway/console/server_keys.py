"""Server keys: which keys the credentials of devices were made with."""

from litestar import Response, Router, get

from chassis.trust import Access
from gateway.administration import server_keys
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest


@get("/", access=Access.ADMIN)
async def key_list(request: ConsoleRequest) -> Response[bytes]:
    """All server keys, with the devices that still use them."""
    listed = await server_keys.list_server_keys.fn(request)
    return page(request, "server_keys.html", keys=listed.items)


ROUTES = Router("/server-keys", route_handlers=[key_list])
