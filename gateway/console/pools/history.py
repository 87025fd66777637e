"""The revisions of a pool, also of a deleted one, and rolling back to one."""

import asyncio
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.params import PathParameter

from chassis.errors import MooringError, NotFound
from chassis.trust import Access
from gateway.administration import pool_history
from gateway.administration.fields import MAX_INT64, PathId
from gateway.administration.listing import Cursor
from gateway.administration.pool_types import Pool
from gateway.console.broker_names import broker_names
from gateway.console.changes import seen_revision
from gateway.console.forms import body_of, form_of
from gateway.console.pages import problem_of, see_other
from gateway.console.pools.fields import lines, rows_of, texts_of, words_of
from gateway.console.pools.shell import path_of, pool_of, pool_page
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem

ON_A_PAGE = 50
# In the form of a deleted pool, in place of its revision.
DELETED = "deleted"
Revision = Annotated[int, PathParameter(ge=1, le=MAX_INT64)]


async def _present_or_last(request: ConsoleRequest, pool_id: int) -> tuple[Pool, bool]:
    """The pool, or what it was before it was deleted; and whether it was deleted. Raises
    `PoolNotFound` if there never was one.
    """
    try:
        return await pool_of(request, pool_id), False
    except NotFound:
        latest: Any = await pool_history.list_pool_revisions.fn(request, pool_id, limit=2)
        for revision in latest.items:
            if revision.kind != "deleted":
                last = await pool_history.get_pool_revision.fn(
                    request, pool_id, revision=revision.revision
                )
                return last, True
        raise


@get("/{pool_id:int}/history", access=Access.VIEWER)
async def history(request: ConsoleRequest, pool_id: PathId, cursor: Cursor = "") -> Response[bytes]:
    """A page of revisions, the newest first."""
    listed: Any
    (pool, is_deleted), listed, brokers = await asyncio.gather(
        _present_or_last(request, pool_id),
        pool_history.list_pool_revisions.fn(request, pool_id, limit=ON_A_PAGE, cursor=cursor),
        broker_names(request),
    )

    def text(name: str, value: Any) -> Any:
        return words_of(value or (), brokers) if name == "members" else value

    return pool_page(
        request,
        "pool_history.html",
        pool,
        is_deleted=is_deleted,
        revisions=listed.items,
        changes={
            revision.revision: {
                name: (text(name, change.before), text(name, change.after))
                for name, change in revision.changes.items()
            }
            for revision in listed.items
            if revision.kind == "updated"
        },
        next_cursor=listed.next_cursor,
    )


def _shown(pool: Pool) -> dict[str, str]:
    """What a rollback restores."""
    return {**texts_of(pool), "members": lines(rows_of(pool)).replace("\n", "; ")}


async def _revision_page(
    request: ConsoleRequest, pool_id: int, revision: int, problem: Problem | None = None
) -> Response[bytes]:
    (pool, is_deleted), then = await asyncio.gather(
        _present_or_last(request, pool_id),
        pool_history.get_pool_revision.fn(request, pool_id, revision=revision),
    )
    now, was = _shown(pool), _shown(then)
    return pool_page(
        request,
        "pool_revision.html",
        pool,
        status=problem.status if problem else 200,
        is_deleted=is_deleted,
        revision=revision,
        differences={name: (now[name], was[name]) for name in now if now[name] != was[name]},
        problem=problem,
    )


@get("/{pool_id:int}/history/{revision:int}", access=Access.VIEWER)
async def revision_page(
    request: ConsoleRequest, pool_id: PathId, revision: Revision
) -> Response[bytes]:
    """What rolling back to the revision would change."""
    return await _revision_page(request, pool_id, revision)


@post(
    "/{pool_id:int}/history/{revision:int}",
    access=Access.OPERATOR,
    action="pool_history.roll_back_pool",
    status_code=200,
)
async def roll_back(request: ConsoleRequest, pool_id: PathId, revision: Revision) -> Response[Any]:
    """Restores the pool as it was at the revision."""
    form = await form_of(request)
    try:
        await pool_history.roll_back_pool.fn(
            request,
            pool_id,
            data=body_of(pool_history.roll_back_pool, {"revision": revision}),
            # A deleted pool has no revision now that the person could have seen.
            if_revision=[] if form.text("revision") == DELETED else seen_revision(form),
        )
    except MooringError as error:
        return await _revision_page(request, pool_id, revision, problem_of(request, error))
    return see_other(path_of(pool_id), saved="yes")
