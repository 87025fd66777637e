"""Every route states the role that it requires, as every gRPC method does.

The services enforce the roles. A route repeats them for the documentation, and a test compares the
two. A route without a policy is refused.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from chassis.errors import Forbidden
from chassis.trust import Access, PersonPolicy, WithinFleets


class NoPolicy(Forbidden):
    """The route has no policy. This is a fault of Mooring; requests to the route are refused."""

    reason = "NO_POLICY"


def required(access: object) -> PersonPolicy:
    """The policy of a route. Raises `NoPolicy`."""
    if not isinstance(access, Access | WithinFleets):
        raise NoPolicy("this path states no policy")
    return access


async def policy_is_stated(
    _: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """A Litestar guard of all routes. Raises `NoPolicy`."""
    required(handler.opt.get("access"))
