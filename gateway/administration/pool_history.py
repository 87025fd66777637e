"""The revisions of a pool, and restoring one: below `/api/v1/pools/{id}`."""

import json
from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Response, Router, get, post
from litestar.params import JSONBody, PathParameter
from mooring.broker.v1 import pool_history_pb2
from msgspec import Meta, Struct

from chassis.trust import Access
from gateway.administration.broker_history import KINDS, FieldChange, Kind
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import MAX_INT64, PathId, moment_of
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.administration.pool_types import Pool, pool_json
from gateway.administration.pools import pool_answer
from gateway.administration.preconditions import IF_REVISION, IfRevision
from gateway.bodies import StrictJson
from gateway.examples import MOMENT


class PoolRevision(Struct, kw_only=True, frozen=True):
    """A change of a pool."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "revision": 2,
        "kind": "updated",
        "changed_at": MOMENT,
        "changed_by": "nightly backup",
        "by_sql": False,
        "changes": {"is_sticky": {"from": True, "to": False}},
    }

    revision: int
    kind: Kind
    changed_at: datetime | None
    changed_by: Annotated[
        str, Meta(description="The name of the API token, or of the database role.")
    ]
    by_sql: bool
    changes: Annotated[dict[str, FieldChange], Meta(description="By field.")]


class PoolHistory(Page[PoolRevision], frozen=True):
    """A pool's revisions, newest first."""


class PoolRollback(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The revision to restore."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"revision": 1}

    revision: Annotated[int, Meta(ge=1, le=MAX_INT64)]


def _json(revision: pool_history_pb2.PoolRevision) -> PoolRevision:
    return PoolRevision(
        revision=revision.revision,
        kind=KINDS[revision.kind],
        changed_at=moment_of(revision, "changed_at"),
        changed_by=revision.changed_by,
        by_sql=revision.by_sql,
        changes={
            name: FieldChange(
                before=json.loads(revision.changes[name].from_json),
                after=json.loads(revision.changes[name].to_json),
            )
            for name in sorted(revision.changes)
        },
    )


@get(
    "/{pool_id:int}/history",
    access=Access.VIEWER,
    summary="List a pool's revisions",
    description="The newest first. Includes changes that were made with SQL, and those of "
    "deleted pools.",
    reasons=("POOL_NOT_FOUND",),
)
async def list_pool_revisions(
    request: CallerRequest, pool_id: PathId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> PoolHistory:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.pool_history.ListPoolRevisions,
        pool_history_pb2.ListPoolRevisionsRequest(pool_id=pool_id, page_size=limit, cursor=cursor),
    )
    return PoolHistory(
        [_json(revision) for revision in answer.revisions], answer.next_cursor or None
    )


@get(
    "/{pool_id:int}/history/{revision:int}",
    access=Access.VIEWER,
    summary="Get a pool at a revision",
    reasons=("REVISION_NOT_FOUND",),
)
async def get_pool_revision(
    request: CallerRequest,
    pool_id: PathId,
    revision: Annotated[int, PathParameter(ge=1, le=MAX_INT64)],
) -> Pool:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.pool_history.GetPoolRevision,
        pool_history_pb2.GetPoolRevisionRequest(pool_id=pool_id, revision=revision),
    )
    return pool_json(answer.pool)


@post(
    "/{pool_id:int}/rollback",
    access=Access.OPERATOR,
    action="pool_history.roll_back_pool",
    summary="Restore a pool to an earlier revision",
    description="Makes a new revision with the fields and members of the earlier one. `is_default` "
    "and a rebalancing do not change. A deleted pool is created again with the same id.",
    status_code=200,
    dto=StrictJson[PoolRollback],
    dependencies=IF_REVISION,
    reasons=("REVISION_NOT_FOUND", "POOL_NAME_TAKEN", "BROKER_UNKNOWN"),
)
async def roll_back_pool(
    request: CallerRequest,
    pool_id: PathId,
    data: JSONBody[PoolRollback],
    if_revision: IfRevision,
) -> Response[Pool]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.pool_history.RollBackPool,
        pool_history_pb2.RollBackPoolRequest(
            pool_id=pool_id, revision=data.revision, if_revision=if_revision
        ),
    )
    return pool_answer(answer.pool)


ROUTES = Router(
    "/pools",
    route_handlers=[list_pool_revisions, get_pool_revision, roll_back_pool],
    tags=["pools"],
)
