"""Checks a job: which devices it would move now, from which broker to which."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mooring.broker.v1 import resolution_pb2 as pb
from mooring.broker.v1 import resolution_pb2_grpc

from chassis.client import ServiceClient
from chassis.errors import Unavailable, from_item
from registry_service.bulk.jobs.outcomes import MOVED

# The most placements in one call, a limit of the broker service.
MAX_SUBJECTS = 10_000
MAX_MOVES = 500
MAX_EXAMPLES = 5


class Destination(NamedTuple):
    """A broker and the step of the resolution that names it; None and "" if no broker may serve."""

    broker_id: int | None
    source: str


class Placing(NamedTuple):
    """The facts that decide the broker of all devices of a group."""

    broker_id: int | None
    fleet_id: str
    fleet_revision: int
    # The wave of the fleet's rollout that has reached the devices; empty if none has.
    wave: str


@dataclass
class Move:
    """Devices that go from one destination to another."""

    before: Destination
    after: Destination
    devices: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """How many rows would have each outcome; and the moves, those with most devices first."""

    outcomes: Mapping[str, int]
    moves: Sequence[Move]
    devices_left_out: int


def placings_of(group: Any) -> tuple[Placing, Placing]:
    """The placements of a group's devices now, and after the job."""
    rest = (group.fleet_id, group.revision, group.wave)
    return Placing(group.previous, *rest), Placing(group.target, *rest)


def summed(groups: Sequence[Any], destinations: Mapping[Placing, Destination]) -> Check:
    """The totals of the groups; `destinations` has the placements of all groups that would be
    moved.
    """
    outcomes: Counter[str] = Counter()
    moves: dict[tuple[Destination, Destination], Move] = {}
    for group in groups:
        outcomes[group.outcome] += group.devices
        if group.outcome != MOVED:
            continue
        before, after = (destinations[placing] for placing in placings_of(group))
        move = moves.setdefault((before, after), Move(before, after))
        move.devices += group.devices
        for uuid in dict.fromkeys((group.first_uuid, group.last_uuid)):
            if len(move.examples) < MAX_EXAMPLES:
                move.examples.append(uuid)
    frequent = sorted(moves.values(), key=lambda move: -move.devices)
    left_out = sum(move.devices for move in frequent[MAX_MOVES:])
    return Check(dict(sorted(outcomes.items())), frequent[:MAX_MOVES], left_out)


class Destinations:
    """Resolves placements with the broker service."""

    def __init__(self, broker_service: ServiceClient) -> None:
        """Calls `broker_service` with at most `MAX_SUBJECTS` placements at a time."""
        self._broker_service = broker_service
        self._stub = resolution_pb2_grpc.ResolutionServiceStub(broker_service.channel)

    async def of(
        self, placings: Sequence[Placing], version: str, deadline: float
    ) -> dict[Placing, Destination]:
        """The destination of each placement. `version` is placement_version, as it was read with
        the placements.

        Raises the errors of the broker service, and `Unavailable` if it cannot resolve one of the
        placements yet.
        """
        found: dict[Placing, Destination] = {}
        for begin in range(0, len(placings), MAX_SUBJECTS):
            asked = placings[begin : begin + MAX_SUBJECTS]
            response = await self._broker_service.call(
                self._stub.ResolveBrokers,
                pb.ResolveBrokersRequest(
                    subjects=[pb.Subject(placement=_placement(placing)) for placing in asked],
                    placement_version=version,
                ),
                deadline=deadline,
            )
            for placing, outcome in zip(asked, response.outcomes, strict=True):
                found[placing] = _destination(outcome)
        return found


def _placement(placing: Placing) -> pb.Placement:
    return pb.Placement(
        broker_id=placing.broker_id or 0,
        fleet_id=placing.fleet_id,
        fleet_revision=placing.fleet_revision,
        wave=placing.wave,
    )


def _destination(outcome: pb.ResolutionOutcome) -> Destination:
    if outcome.HasField("error"):
        error = from_item(outcome.error)
        if error.reason == "NO_BROKER_ALLOWED":
            return Destination(None, "")
        raise Unavailable("the brokers of the devices cannot be determined now") from error
    resolution = outcome.resolution
    source = pb.Source.Name(resolution.source).removeprefix("SOURCE_").lower()
    return Destination(resolution.broker_id or None, source)
