"""gRPC: what devices ask."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from mooring.registry.v1 import registration_pb2 as pb
from mooring.registry.v1 import registration_pb2_grpc
from prometheus_client import Counter

from chassis.coalescer import Coalescer
from chassis.database import DATABASE_UNAVAILABLE
from chassis.errors import InvalidInput, MooringError, Unavailable, to_item
from chassis.server import Context, deadline_of
from chassis.times import timestamp_of
from chassis.trust import Access
from registry_service.registration import connections
from registry_service.registration.answer import Told, each_broker_once, write_connection
from registry_service.registration.plans import Outcome, Result
from registry_service.registration.registrar import Registrar
from registry_service.registration.request import Registration, read_registration

NAME = "mooring.registry.v1.RegistrationService"
POLICIES = {
    f"/{NAME}/RegisterDevices": Access.SERVICE,
    f"/{NAME}/GetConnections": Access.SERVICE,
}

REFUSED = Counter(
    "mooring_devices_refused_total",
    "What devices asked and did not get, by the queue it came through and why",
    ["queue", "reason"],
)
MAX_ITEMS = 1_000
# One batch of registrations at a time: the next would wait for its commit, behind the same key's
# row, and while it waits here it grows instead.
REGISTERING_LANES = 1
TELLING_LANES = 2

Registrations = list[Registration]
Requests = Sequence[pb.ConnectionRequest]


class RegistrationServicer(registration_pb2_grpc.RegistrationServiceServicer):
    """Concurrent calls share transactions."""

    def __init__(
        self,
        registrar: Registrar,
        connections_: connections.Connections,
        environment_url: str,
    ) -> None:
        """`environment_url` is MQTT_BROKER_URL."""
        self._registrar = registrar
        self._connections = connections_
        self._environment_url = environment_url
        self._registering = Coalescer[Registrations, list[Result]](
            self._register,
            name="registrations",
            max_batch=MAX_ITEMS,
            max_waiting=20_000,
            lanes=REGISTERING_LANES,
        )
        self._telling = Coalescer[Requests, list[connections.Result]](
            self._tell,
            name="connections",
            max_batch=MAX_ITEMS,
            max_waiting=20_000,
            lanes=TELLING_LANES,
            spacing_s=0.002,
        )

    async def RegisterDevices(
        self, request: pb.RegisterDevicesRequest, context: Context
    ) -> pb.RegisterDevicesResponse:
        """Each registration gets its own outcome. Raises `InvalidInput`, `Overloaded`."""
        _check_count(len(request.registrations), "registrations")
        results: dict[int, Result] = {}
        registrations: dict[int, Registration] = {}
        for index, message in enumerate(request.registrations):
            try:
                registrations[index] = read_registration(message)
            except MooringError as error:
                results[index] = error
        if registrations:
            done = await self._registering.submit(
                list(registrations.values()),
                deadline=deadline_of(context),
                weight=len(registrations),
                size=request.ByteSize(),
            )
            results |= zip(registrations, done, strict=True)
        return self._registered([results[index] for index in range(len(results))])

    async def GetConnections(
        self, request: pb.GetConnectionsRequest, context: Context
    ) -> pb.GetConnectionsResponse:
        """Each request gets its own outcome. Raises `InvalidInput`, `Overloaded`, `Unavailable`."""
        _check_count(len(request.requests), "requests")
        results: list[connections.Result] = []
        if request.requests:
            results = await self._telling.submit(
                request.requests,
                deadline=deadline_of(context),
                weight=len(request.requests),
                size=request.ByteSize(),
            )
        response = pb.GetConnectionsResponse(
            brokers=each_broker_once(result for result in results if isinstance(result, Told)),
            environment_url=self._environment_url,
        )
        for result in results:
            if isinstance(result, MooringError):
                REFUSED.labels("connections", result.reason).inc()
                response.outcomes.add(error=to_item(result))
            else:
                write_connection(result, response.outcomes.add().connection)
        return response

    async def close(self) -> None:
        """Finishes what is under way."""
        await self._registering.close()
        await self._telling.close()

    async def _register(self, calls: list[Registrations], deadline: float) -> list[list[Result]]:
        together = [registration for call in calls for registration in call]
        results = await self._registrar.register(together, deadline)
        failures = [
            result
            for result in results
            if isinstance(result, Unavailable) and result.reason == DATABASE_UNAVAILABLE
        ]
        if len(failures) == len(results):
            # It is not these devices: the queue should know.
            raise failures[0]
        return _apart(results, calls)

    def _registered(self, results: Sequence[Result]) -> pb.RegisterDevicesResponse:
        response = pb.RegisterDevicesResponse(
            brokers=each_broker_once(
                result.told for result in results if isinstance(result, Outcome)
            ),
            environment_url=self._environment_url,
        )
        # The devices of one transaction were made at one time.
        times: dict[datetime, Timestamp] = {}
        for result in results:
            if isinstance(result, MooringError):
                REFUSED.labels("registrations", result.reason).inc()
                response.outcomes.add(error=to_item(result))
                continue
            device = response.outcomes.add().device
            device.id = result.id
            device.uuid = result.uuid
            device.device_name = result.device_name
            device.device_type = result.device_type
            device.fleet_id = result.fleet_id
            if (created_at := times.get(result.created_at)) is None:
                created_at = times[result.created_at] = timestamp_of(result.created_at)
            device.created_at.MergeFrom(created_at)
            device.created = result.is_created
            write_connection(result.told, device.connection)
        return response

    async def _tell(self, calls: list[Requests], deadline: float) -> list[list[connections.Result]]:
        together = [request for call in calls for request in call]
        return _apart(await self._connections.of(together, deadline), calls)


def _apart(results: Sequence[Any], calls: Sequence[Sequence[object]]) -> list[list[Any]]:
    """The results of several calls' items, each call's again by itself."""
    remaining = iter(results)
    return [[next(remaining) for _ in call] for call in calls]


def _check_count(count: int, field: str) -> None:
    if count > MAX_ITEMS:
        raise InvalidInput(f"at most {MAX_ITEMS} at once", field=field)
