"""Gets brokers from the broker service, and caches its answers.

An answer is a choice that all devices with the same placement share; it is finished here for each
device (domain/choices.py). It has the version of brokers and fleets that it is made from (the row
placement_version). If a read of a device finds the same version in the database, that proves that
the cached answer is the present one, and no call is needed. Without that proof, a cached answer is
a stopgap, for when the broker service does not answer.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import structlog
from mooring.broker.v1 import resolution_pb2 as pb
from mooring.broker.v1 import resolution_pb2_grpc
from prometheus_client import Counter

from chassis.client import ServiceClient
from chassis.errors import DeadlineExceeded, MooringError, from_item
from domain.choices import Choice
from registry_service.errors import BrokerUndecided, NoBrokerForFleet
from registry_service.provisioning.choices import Pools, Read, Shared

log = structlog.get_logger(__name__)

# How many placements are cached. There are seldom more than two for each fleet: with and without a
# rollout.
MAX_REMEMBERED = 10_000
# How long a cached answer is used. The version proves only that the data in the database is the
# same, and a newer release of the broker service may decide otherwise.
MAX_AGE_S = 60.0

STOPGAPS = Counter(
    "mooring_registry_stopgaps_total",
    "Placements answered without the broker service, by the source of the answer",
    ["source"],
)


@dataclass(frozen=True, slots=True)
class DevicePlacement:
    """The facts of a device that decide its broker."""

    broker_id: int | None
    fleet_id: str
    # Empty unless it is the id of a region: devices send this text, and invented regions must not
    # displace other placements in the cache.
    region: str
    # Whether its fleet has a broker or a pool of its own or is restricted.
    fleet_has_rule: bool
    # The revision of the fleet's row. A cached answer for the same revision can be a stopgap.
    fleet_revision: int = field(compare=False)
    # The salt of its fleet's rollout as of that revision, if the rollout has reached it; else
    # empty.
    wave: str = ""
    # The device's pool; the pin comes first.
    pool_id: int | None = None

    @property
    def would_go_to_default(self) -> bool:
        """Whether no broker is configured for it: only then may a stopgap be MQTT_BROKER_URL."""
        return (
            self.broker_id is None
            and self.pool_id is None
            and not self.fleet_has_rule
            and not self.wave
            and not self.region
        )


@dataclass(frozen=True, slots=True)
class _Remembered:
    answer: Shared
    # The version of brokers and fleets that the answer is made from.
    version: str
    # A time of the running loop's clock.
    asked_at: float

    def proves(self, version: str) -> bool:
        age_s = asyncio.get_running_loop().time() - self.asked_at
        return self.version == version and age_s < MAX_AGE_S


class Placements:
    """Resolves placements. Each one gets an answer or its own error."""

    def __init__(self, broker_service: ServiceClient, *, timeout_s: float) -> None:
        """`timeout_s`: how long to wait for the broker service before using a stopgap."""
        self._broker_service = broker_service
        self._stub = resolution_pb2_grpc.ResolutionServiceStub(broker_service.channel)
        self._timeout_s = timeout_s
        self._remembered: OrderedDict[DevicePlacement, _Remembered] = OrderedDict()
        self._pools = Pools()
        # The version of the last response. Guesses assume that it has not changed.
        self.version = ""

    def guess(self, placement: DevicePlacement) -> Shared | None:
        """The cached answer, if it is valid for `version` of brokers and fleets."""
        known = self._remembered.get(placement)
        return known.answer if known is not None and known.proves(self.version) else None

    async def resolve(
        self, placements: Iterable[DevicePlacement], version: str, deadline: float
    ) -> dict[DevicePlacement, Shared | MooringError]:
        """The answers, with at most one call for all placements. `deadline` is a time of the
        running loop's clock. `version` is the version of brokers and fleets that was read with the
        placements' facts. A placement's error is `BrokerUndecided` or `NoBrokerForFleet`. Raises
        `DeadlineExceeded` if the callers have no time left: a stopgap would not reach them, and the
        broker service may work.
        """
        answers: dict[DevicePlacement, Shared | MooringError] = {}
        # The newest of placements that differ only in when their facts were read.
        youngest: dict[DevicePlacement, DevicePlacement] = {}
        for placement in placements:
            known = self._remembered.get(placement)
            if known is not None and known.proves(version):
                answers[placement] = known.answer
                continue
            asked = youngest.get(placement)
            if asked is None or asked.fleet_revision < placement.fleet_revision:
                youngest[placement] = placement
        distinct = list(youngest.values())
        if not distinct:
            return answers
        request = pb.ResolveBrokersRequest(
            subjects=[
                pb.Subject(
                    placement=pb.Placement(
                        broker_id=placement.broker_id or 0,
                        fleet_id=placement.fleet_id,
                        region=placement.region,
                        fleet_revision=placement.fleet_revision,
                        wave=placement.wave,
                        pool_id=placement.pool_id or 0,
                    )
                )
                for placement in distinct
            ],
            placement_version=version,
            known_slots=self._pools.hashes,
        )
        patience_ends = asyncio.get_running_loop().time() + self._timeout_s
        try:
            response = await self._broker_service.call(
                self._stub.ResolveBrokers, request, deadline=min(deadline, patience_ends)
            )
        except MooringError as error:
            if isinstance(error, DeadlineExceeded) and deadline <= patience_ends:
                raise
            log.warning("the broker service did not answer", reason=error.reason)
            return answers | {placement: self._stopgap(placement) for placement in distinct}
        self.version = response.placement_version
        read = Read(response, self._pools)
        for placement, outcome in zip(distinct, response.outcomes, strict=True):
            answers[placement] = self._understood(placement, outcome, read, version)
        return answers

    def _understood(
        self,
        placement: DevicePlacement,
        outcome: pb.ResolutionOutcome,
        read: Read,
        version: str,
    ) -> Shared | MooringError:
        if outcome.HasField("error"):
            error = from_item(outcome.error)
            if error.reason == "NO_BROKER_ALLOWED":
                return NoBrokerForFleet(
                    "none of the brokers that this device's fleet is restricted to can serve"
                )
            log.warning("a placement was not resolved", reason=error.reason)
            return self._stopgap(placement)
        resolution = outcome.resolution
        answer = read.shared(resolution)
        now = asyncio.get_running_loop().time()
        self._remembered[placement] = _Remembered(answer, self.version, now)
        self._remembered.move_to_end(placement)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        if resolution.stale and self.version != version:
            return answer.as_stale()
        return answer

    def _stopgap(self, placement: DevicePlacement) -> Shared | MooringError:
        """The last answer for the same facts, or MQTT_BROKER_URL if no broker is configured for the
        device. If a rollout has reached the device and no answer for the rollout is cached, it is
        the answer from before the rollout.
        """
        remembered = self._remembered.get(placement) or self._remembered.get(
            replace(placement, wave="")
        )
        if remembered is not None:
            STOPGAPS.labels("memory").inc()
            return remembered.answer.as_stale()
        if placement.would_go_to_default:
            STOPGAPS.labels("environment").inc()
            return Shared(Choice(pb.SOURCE_ENVIRONMENT), {}, {}, is_stale=True)
        STOPGAPS.labels("refused").inc()
        return BrokerUndecided("the broker of this device cannot be determined now")
