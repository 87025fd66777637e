"""What all pages of one pool share: its head, its tabs, and what the person may do with it."""

from typing import Any

from litestar import Response
from litestar.handlers import BaseRouteHandler

from gateway.administration import pool_history, pool_users, pools
from gateway.administration.pool_types import Pool
from gateway.console.pages import page
from gateway.console.pools.fields import NAMES, seen_of
from gateway.console.visitor import ConsoleRequest, visitor_of

# The name of a tab, its path below the pool's, and the JSON route that it shows.
TABS: tuple[tuple[str, str, BaseRouteHandler], ...] = (
    ("Settings", "", pools.get_pool),
    ("Use", "/move", pool_users.move_pool_users),
    ("History", "/history", pool_history.list_pool_revisions),
)
# What a person may do with a pool, and the JSON route that does it.
ACTS: dict[str, BaseRouteHandler] = {
    "change": pools.update_pool,
    "make_default": pools.set_default_pool,
    "delete": pools.delete_pool,
    "move": pool_users.move_pool_users,
    "count": pool_users.get_pool_usage,
    "roll_back": pool_history.roll_back_pool,
    "rebalance": pools.rebalance_pool,
}


def path_of(pool_id: int) -> str:
    """The path of a pool's first page."""
    return f"/console/pools/{pool_id}"


async def pool_of(request: ConsoleRequest, pool_id: int) -> Pool:
    """The pool as it is now. Raises what the JSON route raises."""
    answer: Any = await pools.get_pool.fn(request, pool_id)
    found: Pool = answer.content
    return found


def pool_page(
    request: ConsoleRequest,
    template: str,
    pool: Pool,
    *,
    status: int = 200,
    is_deleted: bool = False,
    **values: Any,
) -> Response[bytes]:
    """A page of a pool. A deleted pool has its history and nothing else."""
    visitor = visitor_of(request)
    root = path_of(pool.id)
    return page(
        request,
        template,
        status=status,
        pool=pool,
        seen=seen_of(pool),
        names=NAMES,
        is_deleted=is_deleted,
        root=root,
        tabs=[
            (name, f"{root}{path}")
            for name, path, shows in TABS
            if visitor.may(shows) and (path == "/history" or not is_deleted)
        ],
        may={name: visitor.may(route) for name, route in ACTS.items()},
        **values,
    )
