"""gRPC: the regions, pools and other brokers that refer to a broker."""

from mooring.broker.v1 import references_pb2 as pb
from mooring.broker.v1 import references_pb2_grpc

from broker_service.brokers.references.store import ReferenceStore
from broker_service.refreshing import Refresh
from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.servicers import allows
from chassis.trust import Access


class BrokerReferenceServicer(references_pb2_grpc.BrokerReferenceServiceServicer):
    """A move takes effect in this replica before the caller gets its answer."""

    def __init__(self, store: ReferenceStore, refresh: Refresh) -> None:
        """`refresh` makes a change that was committed take effect in this process."""
        self._store = store
        self._refresh = refresh

    @allows(Access.VIEWER)
    async def GetBrokerReferences(
        self, request: pb.GetBrokerReferencesRequest, context: Context
    ) -> pb.GetBrokerReferencesResponse:
        """Raises `BrokerNotFound`."""
        counts = await self._store.counts_of(request.broker_id)
        return pb.GetBrokerReferencesResponse(references=pb.BrokerReferences(**counts))

    @allows(Access.OPERATOR)
    async def MoveBrokerReferences(
        self, request: pb.MoveBrokerReferencesRequest, context: Context
    ) -> pb.MoveBrokerReferencesResponse:
        """Raises `InvalidInput`, `BrokerNotFound`, `BrokerUnknown`, `BrokerInactive`."""
        if request.from_broker_id == request.to_broker_id:
            raise InvalidInput("must be another broker", field="to_broker_id")
        moved = await self._store.move(request.from_broker_id, request.to_broker_id)
        await self._refresh()
        return pb.MoveBrokerReferencesResponse(moved=pb.BrokerReferences(**moved))
