"""Joins concurrent calls of devices into batches."""

import asyncio
from collections.abc import Sequence

from mooring.registry.v1 import registration_pb2, reports_pb2

from chassis.coalescer import Coalescer
from chassis.errors import MooringError
from chassis.queue import Call
from gateway import answers, device_report
from gateway.held import Held, Waiting
from gateway.service_clients import ServiceClients

MAX_BATCH = 256
MAX_WAITING = 4096


class DeviceCalls:
    """Calls the registry for many devices at once; each gets its own answer or error."""

    def __init__(
        self,
        services: ServiceClients,
        timeout_s: float,
        leaving: asyncio.Event | None = None,
        *,
        stop_within_s: float = 0.0,
    ) -> None:
        """A device waits for `timeout_s` at most. Once the gateway is `leaving`, a device waits for
        `stop_within_s` at most until its broker holds it. Use the object in one event loop only.
        """
        self._services = services
        self._held = Held(services, leaving or asyncio.Event(), stop_within_s=stop_within_s)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._registrations = Coalescer[registration_pb2.Registration, answers.Registered](
            self._register_all,
            name="registrations",
            max_batch=MAX_BATCH,
            max_waiting=MAX_WAITING,
            lanes=2,
        )
        # Reads are fast. Without the pause, each would be sent by itself.
        self._connections = Coalescer[registration_pb2.ConnectionRequest, answers.Connected](
            self._connect_all,
            name="connections",
            max_batch=MAX_BATCH,
            max_waiting=MAX_WAITING,
            lanes=2,
            spacing_s=0.002,
        )

        self._rotations = Coalescer[registration_pb2.ConnectionRequest, answers.Connected](
            self._rotate_all,
            name="rotations",
            max_batch=MAX_BATCH,
            max_waiting=MAX_WAITING,
        )
        self._reports = Coalescer[reports_pb2.ConnectionReport, None](
            self._report_all,
            name="reports",
            max_batch=MAX_BATCH,
            max_waiting=MAX_WAITING,
            spacing_s=0.002,
        )

    def register(
        self, registration: registration_pb2.Registration, *, size: int
    ) -> Call[registration_pb2.Registration, answers.Registered]:
        """Starts the call. `size` is the approximate size of the registration in bytes. Raises
        `Overloaded`.
        """
        return self._registrations.offer(
            registration,
            deadline=self._loop.time() + self._timeout_s,
            owner=registration.provisioning_key,
            size=size,
        )

    def connection(
        self, uuid: str, device_api_key: str, address: str = ""
    ) -> Call[registration_pb2.ConnectionRequest, answers.Connected]:
        """`address` is the device's address, or empty. Raises `Overloaded`."""
        return self._offered(self._connections, uuid, device_api_key, address)

    def rotation(
        self, uuid: str, device_api_key: str, address: str = ""
    ) -> Call[registration_pb2.ConnectionRequest, answers.Connected]:
        """`address` is the device's address, or empty. Raises `Overloaded`."""
        return self._offered(self._rotations, uuid, device_api_key, address)

    def report(
        self, report: reports_pb2.ConnectionReport
    ) -> Call[reports_pb2.ConnectionReport, None]:
        """Starts the call. Raises `Overloaded`."""
        return self._reports.offer(
            report,
            deadline=self._loop.time() + self._timeout_s,
            owner=report.uuid,
            size=report.ByteSize(),
        )

    def awaited(
        self, answer: answers.Registered | answers.Connected, *, since: float
    ) -> Waiting | None:
        """Starts the wait until the device's broker holds it; None if the broker needs no list of
        clients. The device's request came at `since`.
        """
        if answer.awaited is None:
            return None
        return self._held.wait(answer.awaited, deadline=since + self._timeout_s)

    async def close(self) -> None:
        """Refuses new calls, and waits for those under way."""
        await asyncio.gather(
            *(self._registrations.close(), self._connections.close()),
            *(self._rotations.close(), self._reports.close()),
        )
        await self._held.close()

    def _offered(
        self,
        queue: Coalescer[registration_pb2.ConnectionRequest, answers.Connected],
        uuid: str,
        device_api_key: str,
        address: str,
    ) -> Call[registration_pb2.ConnectionRequest, answers.Connected]:
        request = registration_pb2.ConnectionRequest(
            uuid=uuid, device_api_key=device_api_key, source_address=address
        )
        return queue.offer(
            request,
            deadline=self._loop.time() + self._timeout_s,
            owner=uuid,
            size=request.ByteSize(),
        )

    async def _register_all(
        self, registrations: list[registration_pb2.Registration], deadline: float
    ) -> Sequence[answers.Registered | MooringError]:
        response = await self._services.registry.call(
            self._services.registration.RegisterDevices,
            registration_pb2.RegisterDevicesRequest(registrations=registrations),
            deadline=deadline,
        )
        return answers.registered(response)

    async def _connect_all(
        self, requests: list[registration_pb2.ConnectionRequest], deadline: float
    ) -> Sequence[answers.Connected | MooringError]:
        response = await self._services.registry.call(
            self._services.registration.GetConnections,
            registration_pb2.GetConnectionsRequest(requests=requests),
            deadline=deadline,
        )
        return answers.connections(response)

    async def _rotate_all(
        self, requests: list[registration_pb2.ConnectionRequest], deadline: float
    ) -> Sequence[answers.Connected | MooringError]:
        response = await self._services.registry.call(
            self._services.registration.RotateCredentials,
            registration_pb2.RotateCredentialsRequest(requests=requests),
            deadline=deadline,
        )
        return answers.connections(response)

    async def _report_all(
        self, reports: list[reports_pb2.ConnectionReport], deadline: float
    ) -> Sequence[MooringError | None]:
        response = await self._services.registry.call(
            self._services.reports.ReportConnections,
            reports_pb2.ReportConnectionsRequest(reports=reports),
            deadline=deadline,
        )
        return device_report.outcomes(response)
