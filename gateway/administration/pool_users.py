"""What refers to a pool, and moving it: below `/api/v1/pools/{id}`."""

import asyncio
from typing import Annotated, Any, ClassVar

from litestar import Router, get, post
from litestar.params import JSONBody
from mooring.broker.v1 import pools_pb2
from mooring.registry.v1 import pool_users_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.errors import InvalidInput
from chassis.trust import Access
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import Id, PathId, named
from gateway.bodies import StrictJson


class PoolUsage(Struct, kw_only=True, frozen=True):
    """How many devices, fleets, keys and regions refer to a pool."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"devices": 12_000, "fleets": 1, "keys": 0, "regions": 1}

    devices: Annotated[int, Meta(description="Devices that are pinned to it.")]
    fleets: Annotated[int, Meta(description="Fleets whose pool it is.")]
    keys: Annotated[int, Meta(description="Provisioning keys that pin new devices to it.")]
    regions: Annotated[int, Meta(description="Regions whose devices it serves.")]


class PoolMove(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where to move: one of the two."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"to_pool_id": 2}

    to_pool_id: Id | UnsetType = UNSET
    to_broker_id: Annotated[Id, Meta(description="Must be active.")] | UnsetType = UNSET


class PoolMoved(Struct, kw_only=True, frozen=True):
    """What was moved, and what still refers to the old pool: repeat the request until all counts in
    `left` are 0.
    """

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "moved": PoolUsage.EXAMPLE,
        "left": dict.fromkeys(PoolUsage.EXAMPLE, 0),
    }

    moved: PoolUsage
    left: PoolUsage


def _json(usage: pool_users_pb2.PoolUsage, regions: int) -> PoolUsage:
    return PoolUsage(devices=usage.devices, fleets=usage.fleets, keys=usage.keys, regions=regions)


@get(
    "/{pool_id:int}/usage",
    access=Access.VIEWER,
    summary="Count what refers to a pool",
    reasons=("POOL_NOT_FOUND",),
)
async def get_pool_usage(request: CallerRequest, pool_id: PathId) -> PoolUsage:
    caller = request.auth
    used, counted = await asyncio.gather(
        caller.ask_registry(
            caller.services.pool_users.GetPoolUsage,
            pool_users_pb2.GetPoolUsageRequest(pool_id=pool_id),
        ),
        caller.ask_broker_service(
            caller.services.pools.CountPoolRegions, pools_pb2.CountPoolRegionsRequest(id=pool_id)
        ),
    )
    return _json(used.usage, counted.regions)


@post(
    "/{pool_id:int}/move",
    access=Access.OPERATOR,
    action="pool_user.move",
    summary="Move everything that refers to a pool to another pool or to a broker",
    description="Moves pins of devices, fleets, keys and regions. Many devices take more than one "
    "request: each request moves as many as it has time for.",
    status_code=200,
    dto=StrictJson[PoolMove],
    reasons=(
        "POOL_NOT_FOUND",
        "POOL_UNKNOWN",
        "BROKER_UNKNOWN",
        "BROKER_INACTIVE",
        "BROKER_NOT_ALLOWED",
    ),
)
async def move_pool_users(
    request: CallerRequest, pool_id: PathId, data: JSONBody[PoolMove]
) -> PoolMoved:
    caller = request.auth
    target = named(data)
    if len(target) != 1:
        raise InvalidInput("name one of to_pool_id and to_broker_id", field="to_pool_id")
    # The registry refuses what restricted fleets do not allow, so it comes first.
    answer = await caller.ask_registry(
        caller.services.pool_users.MovePoolUsers,
        pool_users_pb2.MovePoolUsersRequest(from_pool_id=pool_id, **target),
    )
    regions = await caller.ask_broker_service(
        caller.services.pools.MovePoolRegions,
        pools_pb2.MovePoolRegionsRequest(id=pool_id, **target),
    )
    return PoolMoved(moved=_json(answer.moved, regions.moved), left=_json(answer.left, 0))


ROUTES = Router("/pools", route_handlers=[get_pool_usage, move_pool_users], tags=["pools"])
