"""Pools of brokers: `/api/v1/pools`."""

from typing import Annotated, Any, ClassVar

from litestar import Response, Router, delete, get, patch, post
from litestar.params import JSONBody, QueryParameter
from mooring.broker.v1 import pools_pb2
from msgspec import Meta, Struct

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import MAX_INT32, Id, PathId, mask, named
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, searched
from gateway.administration.pool_types import (
    ChangedPool,
    NewPool,
    Pool,
    PoolChange,
    PoolPage,
    changed_json,
    fields_of,
    pool_json,
)
from gateway.administration.preconditions import (
    IF_REVISION,
    NOT_MODIFIED,
    IfNoneMatch,
    IfRevision,
    tagged,
    unless_known,
)
from gateway.bodies import StrictJson

DryRun = Annotated[
    bool,
    QueryParameter(
        description="Checks the request and gives the answer that it would have, without changing "
        "anything. A pool that would be created has the id 0."
    ),
]


class Rebalancing(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How far a rebalancing goes."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"percent": 12.5}

    percent: Annotated[
        float,
        Meta(ge=0, le=100, description="The share of the devices, with at most two decimals."),
    ]


def pool_answer(pool: pools_pb2.PoolSettings) -> Response[Pool]:
    """The broker service's pool as JSON, with its `ETag`."""
    return tagged(pool_json(pool), pool.revision)


@post(
    "/",
    access=Access.OPERATOR,
    action="pool.create",
    summary="Create a pool",
    dto=StrictJson[NewPool],
    reasons=("POOL_NAME_TAKEN", "BROKER_UNKNOWN"),
)
async def create_pool(
    request: CallerRequest, data: JSONBody[NewPool], dry_run: DryRun = False
) -> Response[Pool]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.pools.CreatePool,
        pools_pb2.CreatePoolRequest(fields=fields_of(named(data)), validate_only=dry_run),
    )
    # After a dry run no such revision exists, so it has no `ETag`.
    return Response(pool_json(answer.pool)) if dry_run else pool_answer(answer.pool)


@get(
    "/",
    access=WithinFleets(Access.VIEWER),
    summary="List pools",
    description="A token that is restricted to fleets sees the pools whose members its fleets may "
    "use.",
)
async def list_pools(
    request: CallerRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = "",
    search: Annotated[
        str, searched("whose name or description contains this, or whose id it is")
    ] = "",
    broker_id: Annotated[
        int | None,
        QueryParameter(ge=1, le=MAX_INT32, description="Only pools with this member."),
    ] = None,
    id: Annotated[  # noqa: A002 - the name of the parameter
        list[Id] | None,
        QueryParameter(description="Only these pools, at most 500. May be repeated."),
    ] = None,
) -> PoolPage:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.pools.ListPools,
        pools_pb2.ListPoolsRequest(
            page_size=limit, cursor=cursor, search=search, broker_id=broker_id, ids=id or ()
        ),
    )
    return PoolPage([pool_json(pool) for pool in answer.pools], answer.next_cursor or None)


@get(
    "/{pool_id:int}",
    access=WithinFleets(Access.VIEWER),
    summary="Get a pool",
    responses=NOT_MODIFIED,
    reasons=("POOL_NOT_FOUND",),
)
async def get_pool(
    request: CallerRequest, pool_id: PathId, if_none_match: IfNoneMatch = None
) -> Response[Pool]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.pools.GetPool, pools_pb2.GetPoolRequest(id=pool_id)
    )
    pool = pool_json(answer.pool)
    return unless_known(request, if_none_match, pool, pool.revision)


@patch(
    "/{pool_id:int}",
    access=Access.OPERATOR,
    action="pool.update",
    summary="Change a pool",
    description="With `dry_run`, the answer says what the change would move.",
    dto=StrictJson[PoolChange],
    dependencies=IF_REVISION,
    reasons=("POOL_NOT_FOUND", "POOL_NAME_TAKEN", "BROKER_UNKNOWN"),
)
async def update_pool(
    request: CallerRequest,
    pool_id: PathId,
    data: JSONBody[PoolChange],
    if_revision: IfRevision,
    dry_run: DryRun = False,
) -> Response[ChangedPool]:
    caller = request.auth
    values = named(data)
    answer = await caller.ask_broker_service(
        caller.services.pools.UpdatePool,
        pools_pb2.UpdatePoolRequest(
            id=pool_id,
            fields=fields_of(values),
            update_mask=mask(values),
            if_revision=if_revision,
            validate_only=dry_run,
        ),
    )
    shown = changed_json(answer, dry_run=dry_run)
    return Response(shown) if dry_run else tagged(shown, shown.revision)


@delete(
    "/{pool_id:int}",
    access=Access.OPERATOR,
    action="pool.delete",
    summary="Delete a pool",
    description="Refused with POOL_IN_USE while a device, fleet, key or region refers to it; "
    "`usage` then counts them. Its revisions stay.",
    dependencies=IF_REVISION,
    reasons=("POOL_NOT_FOUND", "POOL_IN_USE", "POOL_IS_DEFAULT"),
)
async def delete_pool(request: CallerRequest, pool_id: PathId, if_revision: IfRevision) -> None:
    caller = request.auth
    await caller.ask_broker_service(
        caller.services.pools.DeletePool,
        pools_pb2.DeletePoolRequest(id=pool_id, if_revision=if_revision),
    )


@post(
    "/{pool_id:int}/default",
    access=Access.OPERATOR,
    action="pool.set_default",
    summary="Make a pool the default instead of the present one",
    description="The default pool comes before the default broker.",
    status_code=200,
    dependencies=IF_REVISION,
    reasons=("POOL_NOT_FOUND",),
)
async def set_default_pool(
    request: CallerRequest, pool_id: PathId, if_revision: IfRevision
) -> Response[Pool]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.pools.SetDefaultPool,
        pools_pb2.SetDefaultPoolRequest(id=pool_id, if_revision=if_revision),
    )
    return pool_answer(answer.pool)


@delete(
    "/{pool_id:int}/default",
    access=Access.OPERATOR,
    action="pool.clear_default",
    summary="Let a pool be the default no longer",
    description="Then no pool is the default, and the default broker is used.",
    dependencies=IF_REVISION,
    reasons=("POOL_NOT_FOUND",),
)
async def clear_default_pool(
    request: CallerRequest, pool_id: PathId, if_revision: IfRevision
) -> None:
    caller = request.auth
    await caller.ask_broker_service(
        caller.services.pools.ClearDefaultPool,
        pools_pb2.ClearDefaultPoolRequest(id=pool_id, if_revision=if_revision),
    )


@post(
    "/{pool_id:int}/rebalance",
    access=Access.OPERATOR,
    action="pool.rebalance",
    summary="Begin, widen or narrow a rebalancing",
    description="Devices that it reaches get new homes when they next ask. A wider rebalancing "
    "still reaches all devices from before.",
    status_code=200,
    dto=StrictJson[Rebalancing],
    dependencies=IF_REVISION,
    reasons=("POOL_NOT_FOUND", "POOL_NOT_STICKY"),
)
async def rebalance_pool(
    request: CallerRequest, pool_id: PathId, data: JSONBody[Rebalancing], if_revision: IfRevision
) -> Response[Pool]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.pools.RebalancePool,
        pools_pb2.RebalancePoolRequest(id=pool_id, percent=data.percent, if_revision=if_revision),
    )
    return pool_answer(answer.pool)


@delete(
    "/{pool_id:int}/rebalance",
    access=Access.OPERATOR,
    action="pool.stop_rebalancing",
    summary="End a rebalancing",
    description="Devices that got new homes keep them.",
    dependencies=IF_REVISION,
    reasons=("POOL_NOT_FOUND",),
)
async def stop_pool_rebalancing(
    request: CallerRequest, pool_id: PathId, if_revision: IfRevision
) -> None:
    caller = request.auth
    await caller.ask_broker_service(
        caller.services.pools.StopPoolRebalancing,
        pools_pb2.StopPoolRebalancingRequest(id=pool_id, if_revision=if_revision),
    )


ROUTES = Router(
    "/pools",
    route_handlers=[
        create_pool,
        list_pools,
        get_pool,
        update_pool,
        delete_pool,
        set_default_pool,
        clear_default_pool,
        rebalance_pool,
        stop_pool_rebalancing,
    ],
    tags=["pools"],
)
