"""Which broker: asked of the broker service, remembered for when it does not answer."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from mooring.broker.v1 import resolution_pb2 as pb
from mooring.broker.v1 import resolution_pb2_grpc
from prometheus_client import Counter

from chassis.client import Neighbour
from chassis.errors import MooringError, from_item
from registry_service.errors import BrokerUndecided, NoBrokerForFleet

log = structlog.get_logger(__name__)

# Pins, fleets and regions in combination; a registry rarely sees more than its fleets.
MAX_REMEMBERED = 10_000

STOPGAPS = Counter(
    "mooring_registry_stopgaps_total",
    "Placements answered without the broker service, by what the answer was made of",
    ["source"],
)


@dataclass(frozen=True, slots=True)
class Placement:
    """The facts of a device that decide its broker."""

    broker_id: int | None
    fleet_id: str
    region: str
    # Whether its fleet has a broker of its own or is restricted.
    fleet_has_rule: bool

    @property
    def would_go_to_default(self) -> bool:
        """Whether nothing is configured for it: only then may a stopgap be MQTT_BROKER_URL."""
        return self.broker_id is None and not self.fleet_has_rule


@dataclass(frozen=True, slots=True)
class Answer:
    """The broker, or None for `environment_url`."""

    source: pb.Source.ValueType
    broker: pb.BrokerSettings | None
    is_stale: bool = False


class Placements:
    """Resolves placements, whatever happens: each gets an answer or its own error."""

    def __init__(self, broker_service: Neighbour, *, timeout_s: float) -> None:
        """`timeout_s`: how long to wait for the broker service before using a stopgap."""
        self._broker_service = broker_service
        self._stub = resolution_pb2_grpc.ResolutionServiceStub(broker_service.channel)
        self._timeout_s = timeout_s
        self._remembered: OrderedDict[Placement, Answer] = OrderedDict()

    async def resolve(
        self, placements: Iterable[Placement], now: float, deadline: float
    ) -> dict[Placement, Answer | MooringError]:
        """One call for all of them, each asked once; `now` and `deadline` are of the loop's clock.

        The errors are `BrokerUndecided` and `NoBrokerForFleet`.
        """
        distinct = list(dict.fromkeys(placements))
        if not distinct:
            return {}
        request = pb.ResolveBrokersRequest(
            subjects=[
                pb.Subject(
                    placement=pb.Placement(
                        broker_id=placement.broker_id or 0,
                        fleet_id=placement.fleet_id,
                        region=placement.region,
                    )
                )
                for placement in distinct
            ]
        )
        try:
            response = await self._broker_service.call(
                self._stub.ResolveBrokers,
                request,
                deadline=min(deadline, now + self._timeout_s),
            )
        except MooringError as error:
            log.warning("the broker service did not answer", reason=error.reason)
            return {placement: self._stopgap(placement) for placement in distinct}
        brokers = {broker.id: broker for broker in response.brokers}
        return {
            placement: self._understood(placement, outcome, brokers)
            for placement, outcome in zip(distinct, response.outcomes, strict=True)
        }

    def _understood(
        self,
        placement: Placement,
        outcome: pb.ResolutionOutcome,
        brokers: dict[int, pb.BrokerSettings],
    ) -> Answer | MooringError:
        if outcome.HasField("error"):
            error = from_item(outcome.error)
            if error.reason == "NO_BROKER_ALLOWED":
                return NoBrokerForFleet(
                    "none of the brokers that this device's fleet is restricted to can serve"
                )
            log.warning("a placement was not resolved", reason=error.reason)
            return self._stopgap(placement)
        resolution = outcome.resolution
        answer = Answer(resolution.source, brokers.get(resolution.broker_id), resolution.stale)
        self._remembered[placement] = answer
        self._remembered.move_to_end(placement)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return answer

    def _stopgap(self, placement: Placement) -> Answer | MooringError:
        """The last answer for the same facts; or MQTT_BROKER_URL where it overrides nothing."""
        remembered = self._remembered.get(placement)
        if remembered is not None:
            STOPGAPS.labels("memory").inc()
            return Answer(remembered.source, remembered.broker, is_stale=True)
        if placement.would_go_to_default:
            STOPGAPS.labels("environment").inc()
            return Answer(pb.SOURCE_ENVIRONMENT, None, is_stale=True)
        STOPGAPS.labels("refused").inc()
        return BrokerUndecided("which broker serves this device cannot be found out now")
