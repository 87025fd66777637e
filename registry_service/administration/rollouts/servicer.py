"""gRPC: rollouts."""

from mooring.registry.v1 import rollouts_pb2 as pb
from mooring.registry.v1 import rollouts_pb2_grpc

from chassis import isolation
from chassis.errors import InvalidInput
from chassis.server import Context
from chassis.servicers import allows
from chassis.trust import Access, WithinFleets
from chassis.validation import check_identifier, check_range
from registry_service.administration.fleets.servicer import fleet_proto, rollout_proto
from registry_service.administration.fleets.store import FleetStore
from registry_service.administration.rollouts.store import RolloutStore, require_rollout


class RolloutServicer(rollouts_pb2_grpc.RolloutServiceServicer):
    """Changes take effect at the next resolution of each device."""

    def __init__(self, store: RolloutStore, fleets: FleetStore) -> None:
        """`store` changes the rollouts of the fleets in `fleets`."""
        self._store = store
        self._fleets = fleets

    @allows(WithinFleets(Access.VIEWER))
    async def GetRollout(
        self, request: pb.GetRolloutRequest, context: Context
    ) -> pb.GetRolloutResponse:
        """Raises `FleetNotFound`, `RolloutNotFound`."""
        row = await self._fleets.fleet(request.fleet_id, isolation.fleets.get())
        require_rollout(row)
        return pb.GetRolloutResponse(rollout=rollout_proto(row), fleet_revision=row.revision)

    @allows(WithinFleets(Access.OPERATOR))
    async def SetRollout(
        self, request: pb.SetRolloutRequest, context: Context
    ) -> pb.SetRolloutResponse:
        """Raises `InvalidInput`, `FleetNotFound`, `LostRace`, `BrokerUnknown`, `BrokerInactive`,
        `BrokerNotAllowed`.
        """
        check_range("percent", request.percent, 0, 100)
        if round(request.percent, 2) != request.percent:
            raise InvalidInput("has two decimals at most", field="percent")
        salt = request.salt if request.HasField("salt") else None
        if salt is not None:
            check_identifier("salt", salt)
        row, has_begun = await self._store.set(
            request.fleet_id,
            request.broker_id,
            request.percent,
            salt,
            isolation.fleets.get(),
            request.if_revision,
        )
        return pb.SetRolloutResponse(
            rollout=rollout_proto(row), has_begun=has_begun, fleet_revision=row.revision
        )

    @allows(WithinFleets(Access.OPERATOR))
    async def StopRollout(
        self, request: pb.StopRolloutRequest, context: Context
    ) -> pb.StopRolloutResponse:
        """Raises `FleetNotFound`, `LostRace`, `RolloutNotFound`."""
        await self._store.stop(request.fleet_id, isolation.fleets.get(), request.if_revision)
        return pb.StopRolloutResponse()

    @allows(WithinFleets(Access.OPERATOR))
    async def CompleteRollout(
        self, request: pb.CompleteRolloutRequest, context: Context
    ) -> pb.CompleteRolloutResponse:
        """Raises `FleetNotFound`, `LostRace`, `RolloutNotFound`, `BrokerInactive`,
        `BrokerNotAllowed`.
        """
        within = isolation.fleets.get()
        row = await self._store.complete(request.fleet_id, within, request.if_revision)
        return pb.CompleteRolloutResponse(fleet=fleet_proto(row))
