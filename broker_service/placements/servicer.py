"""gRPC: which broker serves a device."""

from collections.abc import Iterable, Sequence

from mooring.broker.v1 import resolution_pb2 as pb
from mooring.broker.v1 import resolution_pb2_grpc

from broker_service.errors import NoBrokerAllowed, PlacementUnknown
from broker_service.placements.snapshot import Snapshot, SnapshotKeeper
from broker_service.placements.store import PlacementStore
from broker_service.resolution import Placement, Source, resolve
from chassis.coalescer import Coalescer
from chassis.errors import InvalidInput, MooringError, to_item
from chassis.server import Context, deadline_of
from chassis.trust import Access
from chassis.validation import IDENTIFIER, check_identifier

NAME = "mooring.broker.v1.ResolutionService"
POLICIES = {
    f"/{NAME}/ResolveBroker": Access.SERVICE,
    f"/{NAME}/ResolveBrokers": Access.SERVICE,
}

MAX_SUBJECTS = 10_000
UNPLACED = Placement()
SOURCES = {
    Source.DEVICE: pb.SOURCE_DEVICE,
    Source.FLEET: pb.SOURCE_FLEET,
    Source.DEFAULT: pb.SOURCE_DEFAULT,
    Source.ENVIRONMENT: pb.SOURCE_ENVIRONMENT,
}

# A device's placement; None for one that is not registered.
Found = Placement | None


class ResolutionServicer(resolution_pb2_grpc.ResolutionServiceServicer):
    """Devices come from the database each time, brokers and fleets from the snapshot."""

    def __init__(
        self, store: PlacementStore, snapshots: SnapshotKeeper, environment_url: str
    ) -> None:
        """`environment_url` is MQTT_BROKER_URL."""
        self._store = store
        self._snapshots = snapshots
        self._environment_url = environment_url
        self._lookups = Coalescer[str, Found](
            self._look_up, max_batch=1_000, max_waiting=20_000, lanes=2, spacing_s=0.002
        )

    async def ResolveBroker(
        self, request: pb.ResolveBrokerRequest, context: Context
    ) -> pb.ResolveBrokerResponse:
        """Raises `InvalidInput`, `Unavailable`, `NoBrokerAllowed`."""
        check_identifier("device_uuid", request.device_uuid)
        found = await self._lookups.submit(request.device_uuid, deadline=deadline_of(context))
        placement = found or UNPLACED
        snapshot = await self._snapshot_for([placement])
        resolution = self._resolved(placement, snapshot, is_known=found is not None)
        broker = snapshot.settings.get(resolution.broker_id)
        url = broker.url if broker else self._environment_url
        return pb.ResolveBrokerResponse(resolution=resolution, broker=broker, url=url)

    async def ResolveBrokers(
        self, request: pb.ResolveBrokersRequest, context: Context
    ) -> pb.ResolveBrokersResponse:
        """Each subject gets its own outcome. Raises `InvalidInput` for too many."""
        subjects = request.subjects
        if len(subjects) > MAX_SUBJECTS:
            raise InvalidInput(f"at most {MAX_SUBJECTS} at once", field="subjects")
        placements = await self._placements_of(subjects)
        snapshot = await self._snapshot_for(
            placement for placement in placements if isinstance(placement, Placement)
        )
        outcomes = [
            self._outcome(placement, snapshot, is_known=placement is not UNPLACED)
            for placement in placements
        ]
        broker_ids = {outcome.resolution.broker_id for outcome in outcomes} - {0}
        return pb.ResolveBrokersResponse(
            outcomes=outcomes,
            brokers=[snapshot.settings[broker_id] for broker_id in sorted(broker_ids)],
            environment_url=self._environment_url,
        )

    async def close(self) -> None:
        """Finishes the lookups under way."""
        await self._lookups.close()

    async def _look_up(self, uuids: list[str], deadline: float) -> list[Found | MooringError]:
        placements = await self._store.placements_of(uuids)
        return [placements.get(uuid) for uuid in uuids]

    async def _placements_of(
        self, subjects: Sequence[pb.Subject]
    ) -> list[Placement | MooringError]:
        """One for each subject: `UNPLACED` itself for a uuid that is not registered."""
        uuids = [
            subject.device_uuid for subject in subjects if IDENTIFIER.fullmatch(subject.device_uuid)
        ]
        failure: MooringError | None = None
        found: dict[str, Placement] = {}
        if uuids:
            try:
                found = await self._store.placements_of(uuids)
            except MooringError as error:
                failure = error
        placements: list[Placement | MooringError] = []
        for subject in subjects:
            if subject.HasField("placement"):
                facts = subject.placement
                placements.append(
                    Placement(facts.broker_id or None, facts.fleet_id or None, facts.fleet_revision)
                )
            elif not IDENTIFIER.fullmatch(subject.device_uuid):
                placements.append(InvalidInput("is not a device's uuid", field="device_uuid"))
            else:
                placements.append(failure or found.get(subject.device_uuid, UNPLACED))
        return placements

    async def _snapshot_for(self, placements: Iterable[Placement]) -> Snapshot:
        """The current snapshot, read anew when it is older than what the placements name.

        A fleet that was made or changed a moment ago may be restricted: by its rule of before, its
        devices would be sent to the default.
        """
        snapshot = self._snapshots.current
        if all(snapshot.directory.knows(placement) for placement in set(placements)):
            return snapshot
        await self._snapshots.refresh()
        return self._snapshots.current

    def _outcome(
        self, placement: Placement | MooringError, snapshot: Snapshot, *, is_known: bool
    ) -> pb.ResolutionOutcome:
        try:
            if isinstance(placement, MooringError):
                raise placement
            resolution = self._resolved(placement, snapshot, is_known=is_known)
        except MooringError as error:
            return pb.ResolutionOutcome(error=to_item(error))
        return pb.ResolutionOutcome(resolution=resolution)

    def _resolved(
        self, placement: Placement, snapshot: Snapshot, *, is_known: bool
    ) -> pb.Resolution:
        if not snapshot.directory.knows(placement):
            raise PlacementUnknown("the broker or fleet of this device is not known here yet")
        resolution = resolve(placement, snapshot.directory)
        if resolution.source is None:
            raise NoBrokerAllowed("none of the brokers of this device's fleet can serve")
        return pb.Resolution(
            source=SOURCES[resolution.source],
            broker_id=resolution.broker_id or 0,
            known=is_known,
            stale=self._snapshots.is_stale,
        )
