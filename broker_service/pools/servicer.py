"""gRPC: pools of brokers."""

from collections.abc import Mapping
from typing import Any

from mooring.broker.v1 import pools_pb2 as pb
from mooring.broker.v1 import pools_pb2_grpc

from broker_service.brokers.device_counts.store import DeviceCountStore
from broker_service.pools.fields import MAX_INT32, changed, named, new
from broker_service.pools.moves import Move, moves_of
from broker_service.pools.region_store import PoolRegionStore
from broker_service.pools.store import PoolStore
from broker_service.refreshing import Refresh
from chassis import isolation, pages
from chassis.errors import InvalidInput
from chassis.searching import start_of
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access, WithinFleets
from chassis.validation import check_range


class PoolServicer(pools_pb2_grpc.PoolServiceServicer):
    """A change takes effect in this replica before the caller gets its answer."""

    def __init__(
        self, store: PoolStore, regions: PoolRegionStore, counts: DeviceCountStore, refresh: Refresh
    ) -> None:
        """`refresh` makes a change that was committed take effect in this process. `counts` says
        how many devices a change would move.
        """
        self._store = store
        self._regions = regions
        self._counts = counts
        self._refresh = refresh

    @allows(Access.OPERATOR)
    async def CreatePool(
        self, request: pb.CreatePoolRequest, context: Context
    ) -> pb.CreatePoolResponse:
        """Raises `InvalidInput`, `PoolNameTaken`, `BrokerUnknown`."""
        row = await self._store.create(new(request.fields), validate_only=request.validate_only)
        if not request.validate_only:
            await self._refresh()
        return pb.CreatePoolResponse(pool=proto_of(row))

    @allows(WithinFleets(Access.VIEWER))
    async def GetPool(self, request: pb.GetPoolRequest, context: Context) -> pb.GetPoolResponse:
        """Raises `PoolNotFound`."""
        row = await self._store.pool(request.id, isolation.fleets.get())
        return pb.GetPoolResponse(pool=proto_of(row))

    @allows(WithinFleets(Access.VIEWER))
    async def ListPools(
        self, request: pb.ListPoolsRequest, context: Context
    ) -> pb.ListPoolsResponse:
        """Lists pools in the order of their ids. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        start = start_of(request.search, request.cursor, int, largest=MAX_INT32)
        if len(request.ids) > pages.MAX_PAGE_SIZE:
            raise InvalidInput(f"at most {pages.MAX_PAGE_SIZE} at once", field="id")
        rows = await self._store.pools_from(
            start,
            size + 1,
            isolation.fleets.get(),
            broker_id=request.broker_id if request.HasField("broker_id") else None,
            ids=list(request.ids),
        )
        page, next_cursor = pages.cut(
            rows, size, lambda row: start.place_of(row["rank"], row["id"])
        )
        return pb.ListPoolsResponse(pools=map(proto_of, page), next_cursor=next_cursor)

    @allows(Access.OPERATOR)
    async def UpdatePool(
        self, request: pb.UpdatePoolRequest, context: Context
    ) -> pb.UpdatePoolResponse:
        """Raises `InvalidInput`, `PoolNotFound`, `PoolNameTaken`, `BrokerUnknown`, `LostRace`."""
        values = named(request.fields, request.update_mask.paths)
        row, slots, became = await self._store.update(
            request.id,
            lambda before: changed(before, values),
            request.if_revision,
            validate_only=request.validate_only,
        )
        if not request.validate_only:
            await self._refresh()
        # Counting is only worth its time if something moves.
        losing = {move.from_id for move in moves_of(slots, became, {})}
        devices = {}
        if losing:
            found = await self._counts.counts_after(None, len(losing), losing)
            devices = {counts.broker_id: sum(counts.told.values()) for counts in found}
        return pb.UpdatePoolResponse(
            pool=proto_of(row),
            moves=map(_move, moves_of(slots, became, devices)),
            homes_stay=row["is_sticky"],
        )

    @allows(Access.OPERATOR)
    async def DeletePool(
        self, request: pb.DeletePoolRequest, context: Context
    ) -> pb.DeletePoolResponse:
        """Raises `PoolNotFound`, `PoolInUse`, `PoolIsDefault`, `LostRace`."""
        await self._store.delete(request.id, request.if_revision)
        await self._refresh()
        return pb.DeletePoolResponse()

    @allows(Access.OPERATOR)
    async def SetDefaultPool(
        self, request: pb.SetDefaultPoolRequest, context: Context
    ) -> pb.SetDefaultPoolResponse:
        """Raises `PoolNotFound`, `LostRace`."""
        row = await self._store.set_default(request.id, request.if_revision)
        await self._refresh()
        return pb.SetDefaultPoolResponse(pool=proto_of(row))

    @allows(Access.OPERATOR)
    async def ClearDefaultPool(
        self, request: pb.ClearDefaultPoolRequest, context: Context
    ) -> pb.ClearDefaultPoolResponse:
        """Raises `PoolNotFound`, `LostRace`."""
        row = await self._store.clear_default(request.id, request.if_revision)
        await self._refresh()
        return pb.ClearDefaultPoolResponse(pool=proto_of(row))

    @allows(Access.OPERATOR)
    async def RebalancePool(
        self, request: pb.RebalancePoolRequest, context: Context
    ) -> pb.RebalancePoolResponse:
        """Raises `InvalidInput`, `PoolNotFound`, `PoolNotSticky`, `LostRace`."""
        check_range("percent", request.percent, 0, 100)
        if round(request.percent, 2) != request.percent:
            raise InvalidInput("has two decimals at most", field="percent")
        row = await self._store.rebalance(request.id, request.percent, request.if_revision)
        await self._refresh()
        return pb.RebalancePoolResponse(pool=proto_of(row))

    @allows(Access.OPERATOR)
    async def StopPoolRebalancing(
        self, request: pb.StopPoolRebalancingRequest, context: Context
    ) -> pb.StopPoolRebalancingResponse:
        """Raises `PoolNotFound`, `LostRace`."""
        row = await self._store.stop_rebalancing(request.id, request.if_revision)
        await self._refresh()
        return pb.StopPoolRebalancingResponse(pool=proto_of(row))

    @allows(Access.VIEWER)
    async def CountPoolRegions(
        self, request: pb.CountPoolRegionsRequest, context: Context
    ) -> pb.CountPoolRegionsResponse:
        """Raises `PoolNotFound`."""
        return pb.CountPoolRegionsResponse(regions=await self._regions.count(request.id))

    @allows(Access.OPERATOR)
    async def MovePoolRegions(
        self, request: pb.MovePoolRegionsRequest, context: Context
    ) -> pb.MovePoolRegionsResponse:
        """Raises `InvalidInput`, `PoolNotFound`, `PoolUnknown`, `BrokerUnknown`,
        `BrokerInactive`.
        """
        if request.to_pool_id == request.id:
            raise InvalidInput("must be another pool", field="to_pool_id")
        moved = await self._regions.move(
            request.id, to_pool_id=request.to_pool_id, to_broker_id=request.to_broker_id
        )
        await self._refresh()
        return pb.MovePoolRegionsResponse(moved=moved)


def proto_of(row: Mapping[Any, Any]) -> pb.PoolSettings:
    """The message for a row of the table with its members."""
    return pb.PoolSettings(
        id=row["id"],
        fields=pb.PoolFields(
            name=row["name"],
            description=row["description"],
            policy=row["policy"],
            is_sticky=row["is_sticky"],
            members=pb.PoolMembers(
                members=[pb.PoolMemberFields(**member) for member in row["members"]]
            ),
        ),
        is_default=row["is_default"],
        rebalance_percent=row["rebalance_percent"],
        revision=row["revision"],
        created_at=timestamp_of(row["created_at"]),
        updated_at=timestamp_of(row["updated_at"]),
    )


def _move(move: Move) -> pb.PoolMove:
    return pb.PoolMove(
        from_broker_id=move.from_id,
        to_broker_id=move.to_id,
        slots=move.slots,
        devices=move.devices,
    )
