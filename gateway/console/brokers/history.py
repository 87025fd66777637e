"""The revisions of a broker, with their differences, and rolling back to one."""

import asyncio
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.params import PathParameter

from chassis.errors import MooringError, NotFound
from chassis.trust import Access
from gateway.administration import broker_history
from gateway.administration.broker_types import Broker
from gateway.administration.fields import MAX_INT64, PathId
from gateway.administration.listing import Cursor
from gateway.console.brokers.fields import FIELDS, NAMES, shown
from gateway.console.brokers.shell import broker_of, broker_page, path_of
from gateway.console.changes import seen_revision
from gateway.console.forms import body_of, form_of
from gateway.console.pages import problem_of, see_other
from gateway.console.visitor import ConsoleRequest
from gateway.problems import Problem

ON_A_PAGE = 50
# In the form of a deleted broker, in place of its revision.
DELETED = "deleted"
Revision = Annotated[int, PathParameter(ge=1, le=MAX_INT64)]


async def _present_or_last(request: ConsoleRequest, broker_id: int) -> tuple[Broker, bool]:
    """The broker, or what it was before it was deleted; and whether it was deleted. Raises
    `BrokerNotFound` if there never was one.
    """
    try:
        return await broker_of(request, broker_id), False
    except NotFound:
        latest: Any = await broker_history.list_broker_revisions.fn(request, broker_id, limit=2)
        for revision in latest.items:
            if revision.kind != "deleted":
                last = await broker_history.get_broker_revision.fn(
                    request, broker_id, revision=revision.revision
                )
                return last, True
        raise


@get("/{broker_id:int}/history", access=Access.VIEWER)
async def history(
    request: ConsoleRequest, broker_id: PathId, cursor: Cursor = ""
) -> Response[bytes]:
    """A page of revisions, the newest first."""
    listed: Any
    (broker, is_deleted), listed = await asyncio.gather(
        _present_or_last(request, broker_id),
        broker_history.list_broker_revisions.fn(request, broker_id, limit=ON_A_PAGE, cursor=cursor),
    )
    return broker_page(
        request,
        "broker_history.html",
        broker,
        is_deleted=is_deleted,
        revisions=listed.items,
        next_cursor=listed.next_cursor,
        names=NAMES,
    )


async def _revision_page(
    request: ConsoleRequest, broker_id: int, revision: int, problem: Problem | None = None
) -> Response[bytes]:
    (broker, is_deleted), then = await asyncio.gather(
        _present_or_last(request, broker_id),
        broker_history.get_broker_revision.fn(request, broker_id, revision=revision),
    )
    now_shown, then_shown = shown(broker), shown(then)
    now_shown["is_active"], then_shown["is_active"] = broker.is_active, then.is_active
    return broker_page(
        request,
        "broker_revision.html",
        broker,
        status=problem.status if problem else 200,
        is_deleted=is_deleted,
        revision=revision,
        differences={
            name: (now_shown[name], then_shown[name])
            for name in (*FIELDS, "is_active")
            if now_shown[name] != then_shown[name]
        },
        names=NAMES,
        problem=problem,
    )


@get("/{broker_id:int}/history/{revision:int}", access=Access.VIEWER)
async def revision_page(
    request: ConsoleRequest, broker_id: PathId, revision: Revision
) -> Response[bytes]:
    """What rolling back to the revision would change."""
    return await _revision_page(request, broker_id, revision)


@post(
    "/{broker_id:int}/history/{revision:int}",
    access=Access.OPERATOR,
    action="broker_history.roll_back_broker",
    status_code=200,
)
async def roll_back(
    request: ConsoleRequest, broker_id: PathId, revision: Revision
) -> Response[Any]:
    """Restores the broker as it was at the revision."""
    form = await form_of(request)
    given: dict[str, Any] = {"revision": revision}
    if password := form.verbatim("password"):
        given["password"] = password
    try:
        await broker_history.roll_back_broker.fn(
            request,
            broker_id,
            data=body_of(broker_history.roll_back_broker, given),
            # A deleted broker has no revision now that the person could have seen.
            if_revision=[] if form.text("revision") == DELETED else seen_revision(form),
        )
    except MooringError as error:
        return await _revision_page(request, broker_id, revision, problem_of(request, error))
    return see_other(path_of(broker_id), saved="true")
