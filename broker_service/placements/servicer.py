"""gRPC: which broker serves a device."""

from collections.abc import Iterable, Sequence

from mooring.broker.v1 import resolution_pb2 as pb
from mooring.broker.v1 import resolution_pb2_grpc

from broker_service.errors import DeviceNotFound, NoBrokerAllowed, PlacementUnknown
from broker_service.explanation import Facts, explain, reached
from broker_service.placements import explanation_messages
from broker_service.placements.explanation_messages import SOURCES
from broker_service.placements.snapshot import Snapshot, SnapshotKeeper
from broker_service.placements.store import PlacementStore
from broker_service.resolution import Placement, Source, resolve
from chassis import isolation
from chassis.coalescer import Coalescer
from chassis.errors import InvalidInput, MooringError, as_value, to_item
from chassis.identities import Identity
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.trust import Access, Services, WithinFleets
from chassis.validation import IDENTIFIER, check_identifier

# The callers that ask for devices' brokers: the registry, and the operator's own services.
RESOLVING = Services(Identity.REGISTRY, Identity.RESOLVER, Identity.SHARED)

MAX_SUBJECTS = 10_000
# The limit of cached answers from one snapshot; placements are combinations of brokers and fleets.
MAX_REMEMBERED = 5_000
UNPLACED = Placement()

# A device's placement; None if the device is not registered.
Found = Placement | None


class ResolutionServicer(resolution_pb2_grpc.ResolutionServiceServicer):
    """Reads devices from the database for each call, and brokers and fleets from the snapshot."""

    def __init__(
        self, store: PlacementStore, snapshots: SnapshotKeeper, environment_url: str
    ) -> None:
        """`environment_url` is MQTT_BROKER_URL."""
        self._store = store
        self._snapshots = snapshots
        self._environment_url = environment_url
        self._made: _Answers | None = None
        self._lookups = Coalescer[str, Found](
            self._look_up,
            name="lookups",
            max_batch=1_000,
            max_waiting=20_000,
            spacing_s=0.008,
        )

    @allows(RESOLVING)
    async def ResolveBroker(
        self, request: pb.ResolveBrokerRequest, context: Context
    ) -> pb.ResolveBrokerResponse:
        """Raises `InvalidInput`, `Unavailable`, `NoBrokerAllowed`."""
        check_identifier("device_uuid", request.device_uuid)
        found = await self._lookups.submit(request.device_uuid, deadline=deadline_of(context))
        placement = found or UNPLACED
        snapshot = self._snapshots.current
        if not snapshot.directory.knows(placement):
            snapshot = await self._snapshot_for([placement])
        return self._answers(snapshot).of_one(placement, is_known=found is not None)

    @allows(RESOLVING)
    async def ResolveBrokers(
        self, request: pb.ResolveBrokersRequest, context: Context
    ) -> pb.ResolveBrokersResponse:
        """Each subject gets its own outcome. Raises `InvalidInput` for too many subjects."""
        subjects = request.subjects
        if len(subjects) > MAX_SUBJECTS:
            raise InvalidInput(f"at most {MAX_SUBJECTS} at once", field="subjects")
        placements = await self._placements_of(subjects)
        distinct = {id(placement): placement for placement in placements}.values()
        snapshot = await self._snapshot_for(
            [placement for placement in distinct if isinstance(placement, Placement)],
            request.placement_version,
        )
        answers = self._answers(snapshot)
        outcome_of = {id(placement): answers.outcome(placement) for placement in distinct}
        broker_ids = {outcome.resolution.broker_id for outcome in outcome_of.values()} - {0}
        return pb.ResolveBrokersResponse(
            outcomes=[outcome_of[id(placement)] for placement in placements],
            brokers=[snapshot.settings[broker_id] for broker_id in sorted(broker_ids)],
            environment_url=self._environment_url,
            placement_version=snapshot.version,
        )

    @allows(WithinFleets(Access.VIEWER))
    async def ExplainResolution(
        self, request: pb.ExplainResolutionRequest, context: Context
    ) -> pb.ExplainResolutionResponse:
        """Raises `InvalidInput`, `BrokerUnknown`, `FleetUnknown`, `Unavailable`; for tokens that
        are restricted to fleets also `Forbidden` and `DeviceNotFound`.
        """
        own, within = None, isolation.fleets.get()
        if within is not None:
            explanation_messages.require_nothing_supposed(request)
        if request.device_uuid:
            check_identifier("device_uuid", request.device_uuid)
            own = await self._store.facts_of(request.device_uuid, within)
        if own is None and within is not None:
            raise DeviceNotFound("there is no such device")
        facts = explanation_messages.facts_in(request, own or Facts(uuid=request.device_uuid))
        snapshot = await self._snapshot_for(
            [facts.placement, *explanation_messages.named_in(request)]
        )
        is_stale = self._snapshots.is_stale
        unknown = explanation_messages.unknown_in(request, facts, snapshot.directory)
        if unknown is not None and not is_stale:
            raise unknown
        if unknown is not None or not snapshot.directory.knows(facts.placement):
            raise PlacementUnknown(
                "the broker service does not know a broker or fleet of this request yet"
            )
        facts = reached(facts, snapshot.directory)
        directory = explanation_messages.directory_in(request, snapshot.directory)
        if within is not None:
            directory = directory.within(within)
        resolution, steps = explain(facts, directory)
        broker = snapshot.settings.get(resolution.broker_id or 0)
        environment_url = self._environment_url if resolution.source is Source.ENVIRONMENT else ""
        return pb.ExplainResolutionResponse(
            source=SOURCES[resolution.source] if resolution.source else pb.SOURCE_UNSPECIFIED,
            broker=broker,
            url=broker.url if broker else environment_url,
            known=own is not None,
            stale=is_stale,
            steps=explanation_messages.steps_of(steps),
            fields=explanation_messages.fields_of(facts),
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
        """A placement for each subject: the object `UNPLACED` for a uuid that is not registered."""
        # For each subject: the uuid to look up, or its placement or error.
        asked = [_asked(subject) for subject in subjects]
        uuids = [uuid for uuid in asked if isinstance(uuid, str)]
        if not uuids:
            return [answer for answer in asked if not isinstance(answer, str)]
        found: dict[str, Placement] = {}
        missing: Placement | MooringError = UNPLACED
        try:
            found = await self._store.placements_of(uuids)
        except MooringError as error:
            missing = as_value(error)
        return [
            found.get(answer, missing) if isinstance(answer, str) else answer for answer in asked
        ]

    async def _snapshot_for(self, placements: Iterable[Placement], version: str = "") -> Snapshot:
        """The current snapshot, read again if it is older than the data that the caller has read. A
        fleet that was created or changed a moment ago may be restricted. With its old rule, its
        devices would get the default broker.
        """
        snapshot = self._snapshots.current
        # Answers from a stale snapshot are marked. It is read again as soon as possible in any
        # case.
        is_as_read = version in ("", snapshot.version) or self._snapshots.is_stale
        if is_as_read and all(map(snapshot.directory.knows, set(placements))):
            return snapshot
        await self._snapshots.refresh()
        return self._snapshots.current

    def _answers(self, snapshot: Snapshot) -> "_Answers":
        """The cached answers from `snapshot`. Each is made once for all its devices."""
        is_stale = self._snapshots.is_stale
        answers = self._made
        if answers is None or answers.snapshot is not snapshot or answers.is_stale != is_stale:
            answers = self._made = _Answers(snapshot, is_stale, self._environment_url)
        return answers


def _asked(subject: pb.Subject) -> str | Placement | MooringError:
    """The uuid to look up, the given placement, or the error."""
    if subject.HasField("placement"):
        facts = subject.placement
        return Placement(
            facts.broker_id or None, facts.fleet_id or None, facts.fleet_revision, facts.wave
        )
    uuid = subject.device_uuid
    if IDENTIFIER.fullmatch(uuid):
        return uuid
    return InvalidInput("is not a device's uuid", field="device_uuid")


class _Answers:
    """The answers from one snapshot. All devices together have few different placements."""

    def __init__(self, snapshot: Snapshot, is_stale: bool, environment_url: str) -> None:
        self.snapshot = snapshot
        self.is_stale = is_stale
        self._environment_url = environment_url
        self._of_one: dict[tuple[Placement, bool], pb.ResolveBrokerResponse] = {}

    def of_one(self, placement: Placement, *, is_known: bool) -> pb.ResolveBrokerResponse:
        """The response for one device. Raises `PlacementUnknown`, `NoBrokerAllowed`."""
        answer = self._of_one.get((placement, is_known))
        if answer is None:
            resolution = self._resolved(placement, is_known=is_known)
            broker = self.snapshot.settings.get(resolution.broker_id)
            answer = pb.ResolveBrokerResponse(
                resolution=resolution,
                broker=broker,
                url=broker.url if broker else self._environment_url,
            )
            if len(self._of_one) < MAX_REMEMBERED:
                self._of_one[placement, is_known] = answer
        return answer

    def outcome(self, placement: Placement | MooringError) -> pb.ResolutionOutcome:
        """An item of a batch; the object `UNPLACED` stands for a uuid that is not registered."""
        try:
            if isinstance(placement, MooringError):
                raise placement
            resolution = self._resolved(placement, is_known=placement is not UNPLACED)
        except MooringError as error:
            return pb.ResolutionOutcome(error=to_item(error))
        return pb.ResolutionOutcome(resolution=resolution)

    def _resolved(self, placement: Placement, *, is_known: bool) -> pb.Resolution:
        directory = self.snapshot.directory
        if not directory.knows(placement):
            raise PlacementUnknown(
                "the broker service does not know the broker or fleet of this device yet"
            )
        resolution = resolve(placement, directory)
        if resolution.source is None:
            raise NoBrokerAllowed("none of the brokers of this device's fleet can serve")
        return pb.Resolution(
            source=SOURCES[resolution.source],
            broker_id=resolution.broker_id or 0,
            known=is_known,
            stale=self.is_stale,
        )
