"""gRPC: what refers to a broker."""

import asyncio
from functools import partial

from mooring.registry.v1 import broker_users_pb2 as pb
from mooring.registry.v1 import broker_users_pb2_grpc

from chassis.database_failures import retried
from chassis.errors import InvalidInput
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.trust import Access
from registry_service.administration.broker_users.store import PINNED, BrokerUserStore, Key

# The part of the caller's time that is kept for the last chunk and for counting the rest.
RESERVE_S = 4.0


class BrokerUserServicer(broker_users_pb2_grpc.BrokerUserServiceServicer):
    """Moved devices get the new broker when they next ask."""

    def __init__(self, store: BrokerUserStore) -> None:
        """`store` counts and moves."""
        self._store = store

    @allows(Access.VIEWER)
    async def GetBrokerUsage(
        self, request: pb.GetBrokerUsageRequest, context: Context
    ) -> pb.GetBrokerUsageResponse:
        """Raises `BrokerNotFound`."""
        usage = await self._store.usage(request.broker_id)
        return pb.GetBrokerUsageResponse(usage=pb.BrokerUsage(**usage))

    @allows(Access.OPERATOR)
    async def MoveBrokerUsers(
        self, request: pb.MoveBrokerUsersRequest, context: Context
    ) -> pb.MoveBrokerUsersResponse:
        """Raises `InvalidInput`, `BrokerNotFound`, `BrokerUnknown`, `BrokerInactive`,
        `BrokerNotAllowed`.
        """
        source, target = request.from_broker_id, request.to_broker_id
        if source == target:
            raise InvalidInput("must be another broker", field="to_broker_id")
        ends = deadline_of(context) - RESERVE_S
        rules = partial(
            self._store.move_rules, source, target, with_allowances=request.move_allowances
        )
        moved = {**dict.fromkeys(PINNED, 0), **await retried(rules)}
        for which in PINNED:
            after: Key | None = None
            while asyncio.get_running_loop().time() < ends or not any(moved.values()):
                chunk = partial(self._store.move_pins, which, source, target, after)
                count, after = await retried(chunk)
                moved[which] += count
                if after is None:
                    break
        left = await self._store.usage(source)
        return pb.MoveBrokerUsersResponse(
            moved=pb.BrokerUsage(**moved), left=pb.BrokerUsage(**left)
        )
