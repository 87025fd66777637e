"""gRPC: registers and answers devices."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from mooring.registry.v1 import registration_pb2 as pb
from mooring.registry.v1 import registration_pb2_grpc
from prometheus_client import Counter

from chassis.coalescer import Coalescer
from chassis.errors import InvalidInput, MooringError, as_value, to_item
from chassis.identities import Identity
from chassis.server import Context, deadline_of
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Services
from registry_service.activity.recording import Activity
from registry_service.activity.timeline.events import REGISTRATION_REFUSED
from registry_service.provisioning import connections
from registry_service.provisioning.answer import (
    DeviceAnswer,
    each_broker_once,
    is_waited_for,
    write_connection,
)
from registry_service.provisioning.plans import Outcome, Result
from registry_service.provisioning.registrar import Registrar
from registry_service.provisioning.request import Registration, read_registration

# Devices authenticate with their keys; the gateway calls for them.
DEVICES = Services(Identity.GATEWAY, Identity.SHARED)

REFUSED = Counter(
    "mooring_devices_refused_total",
    "Requests of devices without a successful answer, by the queue and the reason",
    ["queue", "reason"],
)
MAX_ITEMS = 1_000
# One batch of registrations at a time. A second batch would wait for the commit of the first,
# because both lock the row of the same key. It waits in the queue instead, where it grows.
REGISTERING_LANES = 1
CONNECTION_LANES = 2

Registrations = list[Registration]
Requests = Sequence[pb.ConnectionRequest]
Connecting = Coalescer[Requests, list[connections.Result]]
ConnectionsResponse = TypeVar(
    "ConnectionsResponse", pb.GetConnectionsResponse, pb.RotateCredentialsResponse
)


class RegistrationServicer(registration_pb2_grpc.RegistrationServiceServicer):
    """Concurrent calls share transactions."""

    def __init__(
        self,
        registrar: Registrar,
        connections_: connections.Connections,
        environment_url: str,
        wake_enforcement: Callable[[], None],
        activity: Activity,
    ) -> None:
        """`environment_url` is MQTT_BROKER_URL.

        `wake_enforcement` is called when a managed broker must be given devices. Registrations are
        counted by `activity`.
        """
        self._activity = activity
        self._registrar = registrar
        self._connections = connections_
        self._environment_url = environment_url
        self._wake_enforcement = wake_enforcement
        self._registering = Coalescer[Registrations, list[Result]](
            self._register,
            name="registrations",
            max_batch=MAX_ITEMS,
            max_waiting=20_000,
            lanes=REGISTERING_LANES,
        )
        self._connecting = Connecting(
            self._answer,
            name="connections",
            max_batch=MAX_ITEMS,
            max_waiting=20_000,
            lanes=CONNECTION_LANES,
            spacing_s=0.002,
        )
        self._rotating = Connecting(
            partial(self._answer, is_rotating=True),
            name="rotations",
            max_batch=MAX_ITEMS,
            max_waiting=20_000,
        )

    @allows(DEVICES)
    async def RegisterDevices(
        self, request: pb.RegisterDevicesRequest, context: Context
    ) -> pb.RegisterDevicesResponse:
        """Each registration gets its own outcome. Raises `InvalidInput`, `Overloaded`."""
        _check_count(len(request.registrations), "registrations")
        begun = asyncio.get_running_loop().time()
        results: dict[int, Result] = {}
        registrations: dict[int, Registration] = {}
        for index, message in enumerate(request.registrations):
            try:
                registrations[index] = read_registration(message)
            except MooringError as error:
                results[index] = as_value(error)
                self._activity.refused(REGISTRATION_REFUSED, error.reason)
        if registrations:
            done = await self._registering.submit(
                list(registrations.values()),
                deadline=deadline_of(context),
                weight=len(registrations),
                size=request.ByteSize(),
            )
            results |= zip(registrations, done, strict=True)
        took_s = asyncio.get_running_loop().time() - begun
        return self._registered([results[index] for index in range(len(results))], took_s)

    @allows(DEVICES)
    async def GetConnections(
        self, request: pb.GetConnectionsRequest, context: Context
    ) -> pb.GetConnectionsResponse:
        """Each request gets its own outcome. Raises `InvalidInput`, `Overloaded`, `Unavailable`."""
        results = await _submitted(self._connecting, request, context)
        return self._connected(pb.GetConnectionsResponse(), results, "connections")

    @allows(DEVICES)
    async def RotateCredentials(
        self, request: pb.RotateCredentialsRequest, context: Context
    ) -> pb.RotateCredentialsResponse:
        """Each request gets its own outcome. Raises `InvalidInput`, `Overloaded`, `Unavailable`."""
        results = await _submitted(self._rotating, request, context)
        return self._connected(pb.RotateCredentialsResponse(), results, "rotations")

    @allows(DEVICES)
    async def NoteRefusals(
        self, request: pb.NoteRefusalsRequest, context: Context
    ) -> pb.NoteRefusalsResponse:
        """Raises `InvalidInput`."""
        _check_count(len(request.refusals), "refusals")
        for refusals in request.refusals:
            self._activity.counts.refused(refusals.reason, "", time.time(), refusals.count)
        return pb.NoteRefusalsResponse()

    async def close(self) -> None:
        """Waits for calls under way."""
        await self._registering.close()
        await self._connecting.close()
        await self._rotating.close()

    async def _register(self, calls: list[Registrations], deadline: float) -> list[list[Result]]:
        together = [registration for call in calls for registration in call]
        results = await self._registrar.register(together, deadline)
        if any(isinstance(result, Outcome) and is_waited_for(result.answer) for result in results):
            self._wake_enforcement()
        return split_by_call(results, calls)

    def _registered(self, results: Sequence[Result], took_s: float) -> pb.RegisterDevicesResponse:
        response = pb.RegisterDevicesResponse(
            brokers=each_broker_once(
                result.answer for result in results if isinstance(result, Outcome)
            ),
            environment_url=self._environment_url,
        )
        # Devices of one transaction have the same time, which is converted once.
        times: dict[datetime, Timestamp] = {}
        counts: dict[tuple[str, bool], int] = {}  # by fleet, and whether the device is new
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
            write_connection(result.answer, device.connection)
            counted = result.fleet_id, result.is_created
            counts[counted] = counts.get(counted, 0) + 1
        self._activity.registered(counts, took_s)
        return response

    async def _answer(
        self, calls: list[Requests], deadline: float, *, is_rotating: bool = False
    ) -> list[list[connections.Result]]:
        together = [request for call in calls for request in call]
        results = await self._connections.of(together, deadline, is_rotating=is_rotating)
        if any(isinstance(result, DeviceAnswer) and is_waited_for(result) for result in results):
            self._wake_enforcement()
        return split_by_call(results, calls)

    def _connected(
        self, response: ConnectionsResponse, results: Sequence[connections.Result], queue: str
    ) -> ConnectionsResponse:
        """Fills in the response, and returns it."""
        answers = (result for result in results if isinstance(result, DeviceAnswer))
        response.brokers.extend(each_broker_once(answers))
        response.environment_url = self._environment_url
        for result in results:
            if isinstance(result, MooringError):
                REFUSED.labels(queue, result.reason).inc()
                response.outcomes.add(error=to_item(result))
            else:
                write_connection(result, response.outcomes.add().connection)
        return response


async def _submitted(
    queue: Connecting,
    request: pb.GetConnectionsRequest | pb.RotateCredentialsRequest,
    context: Context,
) -> list[connections.Result]:
    """The outcome of each request. Raises `InvalidInput`, `Overloaded`, `Unavailable`."""
    _check_count(len(request.requests), "requests")
    if not request.requests:
        return []
    return await queue.submit(
        request.requests,
        deadline=deadline_of(context),
        weight=len(request.requests),
        size=request.ByteSize(),
    )


def split_by_call(results: Sequence[Any], calls: Sequence[Sequence[object]]) -> list[list[Any]]:
    """Splits the results of a batch into one list for each call."""
    remaining = iter(results)
    return [[next(remaining) for _ in call] for call in calls]


def _check_count(count: int, field: str) -> None:
    if count > MAX_ITEMS:
        raise InvalidInput(f"at most {MAX_ITEMS} at once", field=field)
