"""Every route states what it asks of whoever calls it, as every gRPC method does.

Who may do what is enforced once, by the services; a route repeats it, for the documentation and for
the test that compares the two. One that states nothing has been forgotten, and serves nobody.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from chassis.errors import Forbidden
from chassis.trust import Access, PersonPolicy, WithinFleets


class NoPolicy(Forbidden):
    """The route has been forgotten: a fault of ours, and closed."""

    reason = "NO_POLICY"


def required(access: object) -> PersonPolicy:
    """What a route states. Raises `NoPolicy`."""
    if not isinstance(access, Access | WithinFleets):
        raise NoPolicy("this path states no policy")
    return access


async def policy_is_stated(
    _: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """A guard of all routes. Raises `NoPolicy`."""
    required(handler.opt.get("access"))
