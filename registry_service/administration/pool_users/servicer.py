"""gRPC: what refers to a pool."""

import asyncio
from functools import partial

from mooring.registry.v1 import pool_users_pb2 as pb
from mooring.registry.v1 import pool_users_pb2_grpc

from chassis.database_failures import retried
from chassis.errors import InvalidInput
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.trust import Access
from registry_service.administration.pool_users.store import PoolUserStore, Target

# The part of the caller's time that is kept for the last chunk and for counting the rest.
RESERVE_S = 4.0


class PoolUserServicer(pool_users_pb2_grpc.PoolUserServiceServicer):
    """Moved devices get the new broker when they next ask."""

    def __init__(self, store: PoolUserStore) -> None:
        """`store` counts and moves."""
        self._store = store

    @allows(Access.VIEWER)
    async def GetPoolUsage(
        self, request: pb.GetPoolUsageRequest, context: Context
    ) -> pb.GetPoolUsageResponse:
        """Raises `PoolNotFound`."""
        return pb.GetPoolUsageResponse(
            usage=pb.PoolUsage(**await self._store.usage(request.pool_id))
        )

    @allows(Access.OPERATOR)
    async def MovePoolUsers(
        self, request: pb.MovePoolUsersRequest, context: Context
    ) -> pb.MovePoolUsersResponse:
        """Raises `InvalidInput`, `PoolNotFound`, `PoolUnknown`, `BrokerUnknown`, `BrokerInactive`,
        `BrokerNotAllowed`.
        """
        source = request.from_pool_id
        if request.to_pool_id == source:
            raise InvalidInput("must be another pool", field="to_pool_id")
        target = Target(request.to_pool_id or None, request.to_broker_id or None)
        ends = deadline_of(context) - RESERVE_S
        moved = await retried(partial(self._store.move_rules, source, target))
        moved["devices"] = 0
        after: int | None = None
        while asyncio.get_running_loop().time() < ends or not any(moved.values()):
            chunk = partial(self._store.move_devices, source, target, after)
            count, after = await retried(chunk)
            moved["devices"] += count
            if after is None:
                break
        left = await self._store.usage(source)
        return pb.MovePoolUsersResponse(moved=pb.PoolUsage(**moved), left=pb.PoolUsage(**left))
