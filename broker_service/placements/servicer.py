"""gRPC: which broker serves a device."""

from collections.abc import Iterable, Sequence

from mooring.broker.v1 import resolution_pb2 as pb
from mooring.broker.v1 import resolution_pb2_grpc

from broker_service.errors import DeviceNotFound, PlacementUnknown
from broker_service.explanation import Facts, explain, reached
from broker_service.placements import explanation_messages
from broker_service.placements.answers import UNPLACED, Answers
from broker_service.placements.pool_messages import PoolMessages
from broker_service.placements.snapshot import Snapshot, SnapshotKeeper
from broker_service.placements.store import Placed, PlacementStore
from broker_service.resolution import Placement
from chassis import isolation
from chassis.coalescer import Coalescer
from chassis.errors import InvalidInput, MooringError, as_value, to_item
from chassis.identities import Identity
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.trust import Access, Services, WithinFleets
from chassis.validation import IDENTIFIER, check_identifier
from domain.choices import Choice

# The callers that ask for devices' brokers: the registry, and the operator's own services.
RESOLVING = Services(Identity.REGISTRY, Identity.RESOLVER, Identity.SHARED)

MAX_SUBJECTS = 10_000

# What is known about a device; None if it is not registered.
Found = Placed | None


class ResolutionServicer(resolution_pb2_grpc.ResolutionServiceServicer):
    """Reads devices from the database for each call, and brokers and fleets from the snapshot."""

    def __init__(
        self, store: PlacementStore, snapshots: SnapshotKeeper, environment_url: str
    ) -> None:
        """`environment_url` is MQTT_BROKER_URL."""
        self._store = store
        self._snapshots = snapshots
        self._environment_url = environment_url
        self._made: Answers | None = None
        self._messages = PoolMessages()
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
        placement = (found or UNPLACED).placement
        snapshot = self._snapshots.current
        if not snapshot.directory.knows(placement):
            snapshot = await self._snapshot_for([placement])
        answers = self._answers(snapshot)
        return answers.of_one(request.device_uuid, found, with_fallbacks=request.with_fallbacks)

    @allows(RESOLVING)
    async def ResolveBrokers(
        self, request: pb.ResolveBrokersRequest, context: Context
    ) -> pb.ResolveBrokersResponse:
        """Each subject gets its own outcome. Raises `InvalidInput` for too many subjects."""
        subjects = request.subjects
        if len(subjects) > MAX_SUBJECTS:
            raise InvalidInput(f"at most {MAX_SUBJECTS} at once", field="subjects")
        asked = [_asked(subject) for subject in subjects]
        uuids = [uuid for uuid in asked if isinstance(uuid, str)]
        found: dict[str, Placed] = {}
        missing: MooringError | None = None
        if uuids:
            try:
                found = await self._placed(uuids)
            except MooringError as error:
                missing = as_value(error)
        known = [each.placement for each in found.values()]
        known += [each for each in asked if isinstance(each, Placement)]
        if uuids and missing is None:
            known.append(UNPLACED.placement)
        snapshot = await self._snapshot_for(known, request.placement_version)
        answers = self._answers(snapshot)
        outcomes: list[pb.ResolutionOutcome] = []
        choices: dict[int, Choice] = {}
        broker_ids: set[int] = set()
        # Without a pool, devices with the same placement share an outcome.
        same: dict[int, pb.ResolutionOutcome] = {}
        for each in asked:
            if isinstance(each, Placement):
                outcome, choice = answers.of_placement(each)
                if choice is not None:
                    choices[id(choice)] = choice
            elif isinstance(each, str):
                placed = found.get(each, missing)
                shared = same.get(id(placed))
                if shared is not None:
                    outcomes.append(shared)
                    continue
                outcome = answers.of_device(each, placed, with_fallbacks=request.with_fallbacks)
                if not answers.needs_devices(placed):
                    same[id(placed)] = outcome
                broker_ids.add(outcome.resolution.broker_id)
                broker_ids.update(outcome.resolution.fallback_broker_ids)
            else:
                outcome = pb.ResolutionOutcome(error=to_item(each))
            outcomes.append(outcome)
        shared_ids = set[int]().union(*(choice.broker_ids for choice in choices.values()))
        return pb.ResolveBrokersResponse(
            outcomes=outcomes,
            brokers=[snapshot.settings[one] for one in sorted((broker_ids | shared_ids) - {0})],
            environment_url=self._environment_url,
            placement_version=snapshot.version,
            pools=answers.pools(choices.values(), request.known_slots),
            healths=answers.healths(shared_ids),
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
        explained = explain(facts, directory)
        broker = snapshot.settings.get(explained.broker_id or 0)
        return pb.ExplainResolutionResponse(
            broker=broker,
            url=broker.url if broker else self._environment_url if explained.source else "",
            known=own is not None,
            stale=is_stale,
            fields=explanation_messages.fields_of(facts),
            **explanation_messages.parts_of(explained),
        )

    async def close(self) -> None:
        """Finishes the lookups under way."""
        await self._lookups.close()

    async def _look_up(self, uuids: list[str], deadline: float) -> list[Found | MooringError]:
        placed = await self._placed(uuids)
        return [placed.get(uuid) for uuid in uuids]

    async def _placed(self, uuids: Sequence[str]) -> dict[str, Placed]:
        needs_locations = self._snapshots.current.needs_locations
        return await self._store.placements_of(uuids, with_locations=needs_locations)

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

    def _answers(self, snapshot: Snapshot) -> Answers:
        """The cached answers from `snapshot`. Each is made once for all its devices."""
        is_stale = self._snapshots.is_stale
        answers = self._made
        if answers is None or answers.snapshot is not snapshot or answers.is_stale != is_stale:
            answers = self._made = Answers(
                snapshot, is_stale, self._environment_url, self._messages
            )
        return answers


def _asked(subject: pb.Subject) -> str | Placement | MooringError:
    """The uuid to look up, the given placement, or the error."""
    if subject.HasField("placement"):
        facts = subject.placement
        return Placement(
            facts.broker_id or None,
            facts.fleet_id or None,
            facts.fleet_revision,
            facts.wave,
            facts.pool_id or None,
            facts.region,
        )
    uuid = subject.device_uuid
    if IDENTIFIER.fullmatch(uuid):
        return uuid
    return InvalidInput("is not a device's uuid", field="device_uuid")
